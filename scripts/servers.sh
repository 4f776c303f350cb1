# shellcheck shell=bash
# A folder to work in, and the servers that the demo and the soak start in it. Sourced, never run;
# scripts/lib.sh comes first. Everything ends with the script.

work=$(mktemp -d)
chmod 0711 "$work"
pids=()
finish() {
  for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

# free_ports COUNT: that many free ports of the loopback address.
free_ports() {
  python3 - "$1" <<'PY'
import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in held))
PY
}

# until_ready WHAT COMMAND...: at most a minute.
until_ready() {
  local what=$1
  shift
  for _ in $(seq 300); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.2
  done
  die "$what did not become ready"
}

start_s3() {
  local p
  read -ra p <<<"$(free_ports 8)"
  mkdir -p "$work/s3/data"
  printf '{"identities":[{"name":"kbak","credentials":[{"accessKey":"demo","secretKey":"demodemo"}],"actions":["Admin","Read","Write","List","Tagging"]}]}' >"$work/s3/s3.json"
  setpriv --pdeathsig KILL "$KBAK_TEST_WEED" -logtostderr=true server -dir="$work/s3/data" \
    -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false -master.peers=none \
    -master.volumeSizeLimitMB=1024 -volume.max=500 -master.port="${p[0]}" -master.port.grpc="${p[1]}" \
    -volume.port="${p[2]}" -volume.port.grpc="${p[3]}" -filer -filer.port="${p[4]}" \
    -filer.port.grpc="${p[5]}" -filer.localSocket="$work/s3/filer.sock" -s3 -s3.port="${p[6]}" \
    -s3.port.grpc="${p[7]}" -s3.localSocket="$work/s3/s3.sock" -s3.port.iceberg=0 -s3.port.lance=0 \
    -s3.config="$work/s3/s3.json" >"$work/s3/log" 2>&1 &
  pids+=($!)
  endpoint=http://127.0.0.1:${p[6]}
  until_ready SeaweedFS curl -fsS "$endpoint/healthz"
  printf '[default]\naws_access_key_id = demo\naws_secret_access_key = demodemo\n' >"$work/credentials"
  chmod 0600 "$work/credentials"
  curl -fsS -X PUT --aws-sigv4 aws:amz:us-east-1:s3 --user demo:demodemo "$endpoint/backups" -o /dev/null
}
