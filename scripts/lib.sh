# shellcheck shell=bash
# What the scripts share. Sourced, never run.

# shellcheck disable=SC2034  # for those who source this
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Everything that is built or installed for tests and has not to be made again.
# Removing it is always safe.
cache=${KBAK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kbak}

# say MESSAGE: to the reader. Standard output belongs to results.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
  say "$*"
  exit 1
}

# have COMMAND: also where Debian keeps what only administrators' PATH has.
have() { PATH=$PATH:/usr/sbin:/sbin type -P "$1" >/dev/null; }

# digest: of standard input, short enough for a folder's name.
digest() { sha256sum | cut -c1-16; }

# once FOLDER WHAT COMMAND...: runs COMMAND to fill FOLDER unless an earlier run
# has finished doing so. Runs side by side wait for each other. A folder whose
# making was cut short is made afresh.
once() {
  local folder=$1 what=$2
  shift 2
  [ -e "$folder/.complete" ] && return
  mkdir -p "$(dirname "$folder")"
  (
    flock -n 9 || {
      say "another run is busy with $what, waiting for it"
      flock 9
    }
    [ -e "$folder/.complete" ] && exit
    say "$what: once, then kept in $folder"
    rm -rf "$folder"
    mkdir "$folder"
    start=$SECONDS
    # In a list with ||, set -e would be off inside COMMAND, so the status is
    # taken from a shell of its own.
    set +e
    (
      set -e
      "$@" >&2 9>&-
    )
    status=$?
    set -e
    [ $status = 0 ] || die "$what failed"
    touch "$folder/.complete"
    say "$what: done in $((SECONDS - start)) s"
  ) 9>"$folder.lock"
}

# packages NAME...: installs Debian packages, after saying so.
packages() {
  [ $# -gt 0 ] || return 0
  have apt-get || die "these are missing and there is no apt-get to install them with: $*"
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    have sudo || die "these are missing, and installing them needs root: apt-get install $*"
    as_root=(sudo)
  fi
  say "installing Debian packages: $*"
  # shellcheck disable=SC2016  # expanded by the inner shell: sudo keeps arguments, not variables
  "${as_root[@]}" sh -ec '
    export DEBIAN_FRONTEND=noninteractive
    # PostgreSQL from Debian makes and starts a server of its own when it is
    # installed. Tests need only the programs.
    drop=/etc/postgresql-common/createcluster.d/kbak-tests.conf
    case " $* " in *" postgresql "*)
      mkdir -p "${drop%/*}"
      echo "create_main_cluster = false" >"$drop"
      trap "rm -f $drop" EXIT
    esac
    apt-get update -qq
    apt-get install -qqy --no-install-recommends "$@" >/dev/null
  ' sh "$@" >&2
}

# target_dir: where cargo builds: outside the tree, so that clones share it, and
# apart for each compiler, which would throw the other's work away.
target_dir() {
  printf '%s\n' "${CARGO_TARGET_DIR:-$cache/target/$(rustc -vV | digest)}"
}
