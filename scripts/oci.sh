# shellcheck shell=bash
# Makes an OCI image without an engine or a registry: an image is a few JSON files beside tar
# archives. Sourced, never run. Needs GNU tar, gzip and sha256sum.

# oci_layer FOLDER FILE: FOLDER as an archive with the same bytes every time.
oci_layer() {
  tar --create --file "$2" --directory "$1" --sort=name --format=gnu \
    --mtime="@${SOURCE_DATE_EPOCH:-0}" --owner=0 --group=0 --numeric-owner .
}

# oci_blob LAYOUT FILE: moves FILE into the layout and prints "DIGEST SIZE".
oci_blob() {
  local digest size
  digest=$(sha256sum <"$2" | cut -d' ' -f1)
  size=$(stat -c %s "$2")
  mv "$2" "$1/blobs/sha256/$digest"
  printf '%s %s\n' "$digest" "$size"
}

# oci_image ROOTFS NAME CONFIG OUT: an archive for `ctr images import`, `podman load` or
# `skopeo copy oci-archive:OUT …`. CONFIG is the JSON object that runs it: {"Entrypoint": …}.
# OCI_COMPRESSION is gzip's level, 9 by default.
oci_image() {
  local rootfs=$1 name=$2 config=$3 out=$4 layout layer diff created config_blob manifest
  layout=$(mktemp -d)
  mkdir -p "$layout/blobs/sha256"
  created=$(date -u -d "@${SOURCE_DATE_EPOCH:-0}" +%Y-%m-%dT%H:%M:%SZ)

  oci_layer "$rootfs" "$layout/layer"
  diff=$(sha256sum <"$layout/layer" | cut -d' ' -f1)
  gzip -n "-${OCI_COMPRESSION:-9}" "$layout/layer"
  read -r -a layer <<<"$(oci_blob "$layout" "$layout/layer.gz")"

  printf '{"created":"%s","architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$created" "$(oci_architecture)" "$config" "$diff" >"$layout/config"
  read -r -a config_blob <<<"$(oci_blob "$layout" "$layout/config")"

  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}]}' \
    "${config_blob[@]}" "${layer[@]}" >"$layout/manifest"
  read -r -a manifest <<<"$(oci_blob "$layout" "$layout/manifest")"

  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}}]}' \
    "${manifest[@]}" "$(oci_architecture)" "$name" "${name##*:}" >"$layout/index.json"
  printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"

  oci_layer "$layout" "$out"
  rm -rf "$layout"
}

# oci_libraries ROOTFS PROGRAM...: copies this machine's libraries that dynamic programs load.
oci_libraries() {
  local rootfs=$1 file
  shift
  while read -r file; do
    [ ! -e "$rootfs$file" ] || continue
    mkdir -p "$rootfs$(dirname "$file")"
    cp -L "$file" "$rootfs$file"
  done < <(ldd "$@" 2>/dev/null | sed -n 's/^\(.* => \)\?[[:space:]]*\(\/[^ ]*\) (.*/\2/p' | sort -u)
}

# oci_architecture: of this machine, in Go's words.
oci_architecture() {
  case $(uname -m) in
  x86_64) echo amd64 ;;
  aarch64) echo arm64 ;;
  *) uname -m ;;
  esac
}
