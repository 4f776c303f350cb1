# shellcheck shell=bash
# The second half of the demo: kbak in a cluster with a real node, installed by the chart from drafted
# values. Sourced by scripts/demo, never run, which sets the variables that are not set here.
# shellcheck disable=SC2154

# in_cluster TASK ARGUMENT...: of scripts/python/demo_cluster.py
in_cluster() { python3 "$root/scripts/python/demo_cluster.py" "$1" "$work/node/kubeconfig" "${@:2}"; }

# shop_sql DATABASE SQL: in the pod's database, from outside of the cluster.
shop_sql() {
  PGPASSWORD=$(cat "$work/shop.password") "$KBAK_TEST_PG_BIN/psql" -X -A -t -q -v ON_ERROR_STOP=1 \
    -h 127.0.0.1 -p "$shop_port" -U shop -d "$1" -c "$2"
}

# reach_shop: waits for the database of the pod, and makes it reachable at $shop_port.
reach_shop() {
  local address
  address=$(in_cluster address)
  plane node "publish $address"
  shop_port=$(python3 -c 'import json,sys; print(json.loads(sys.argv[1])["port"])' "$answer")
  # The Service's rules come a moment after its pod is ready.
  until_ready "the shop's database" "$KBAK_TEST_PG_BIN/pg_isready" -q -h 127.0.0.1 -p "$shop_port"
}

shop_rows() { shop_sql ledger "SELECT count(*), md5(string_agg(t::text, '' ORDER BY n)) FROM orders t"; }

# prepare_cluster: starts a node and makes the image, without waiting for either.
prepare_cluster() {
  # Arguments are words: KBAK_TEST_NODE is made of them.
  # shellcheck disable=SC2086
  start_plane node $KBAK_TEST_NODE --image "$KBAK_TEST_POSTGRES_IMAGE"
  "$root/scripts/image" "$kbak" --variant postgres >"$work/image" &
  image_pid=$!
}

demo_in_cluster() {
  local store=$work/laptop inside began=$SECONDS
  printf 'a password of the shop' >"$work/shop.password"

  title "in a cluster: a node, the image of kbak, a shop with a PostgreSQL pod"
  plane_ready node
  in_cluster shop
  wait "$image_pid"
  plane node "import $(cat "$work/image")"
  plane node "reach ${endpoint##*:}"
  inside=http://192.0.2.1:${endpoint##*:}
  reach_shop
  shop_sql postgres "CREATE DATABASE ledger"
  shop_sql ledger "CREATE TABLE orders AS SELECT n, md5(n::text) AS note FROM generate_series(1, 5000) AS n"
  shop_rows >"$work/shop.before"

  title "kbak plan init --values, kbak init --secrets, helm install"
  mkdir "$store"
  cd "$store" || return
  repo=(--repo s3://backups/cluster --region us-east-1)
  "$kbak" plan init --values values.yaml "${repo[@]}" --endpoint "$inside" --recipient "$ada" --recipient "$bob" \
    --kubeconfig "$work/node/kubeconfig"
  sed 's/^/   /' values.yaml
  "$kbak" init "${repo[@]}" --endpoint "$endpoint" --credentials-file "$work/credentials" --recipient "$ada" \
    --recipient "$bob" --identity "$work/ada.key" --identity "$work/bob.key" --no-lock --secrets kbak
  in_cluster secrets "$work/credentials" kbak-writer.secret.yaml kbak-epoch.secret.yaml
  HOME=$work "$KBAK_TEST_HELM" install kbak "$root/deploy/chart" -n kbak --kubeconfig "$work/node/kubeconfig" \
    -f values.yaml --set-file signers=kbak.pub --set "plan.spec.databases[0].tls=allow-plaintext" \
    --set image.repository=kbak.test/kbak,image.pullPolicy=Never --set-string image.tag=1 >/dev/null

  title "a Job of the CronJob backs up all resources and the database"
  in_cluster job first

  title "disaster: the namespace is deleted; a laptop restores it"
  in_cluster lose
  restore=("$kbak" restore latest "${repo[@]}" --endpoint "$endpoint" --credentials-file "$work/credentials"
    --signer kbak.pub --identity "$work/bob.key")
  "${restore[@]}" --item resources --cluster --kubeconfig "$work/node/kubeconfig" --namespace shop
  reach_shop
  "${restore[@]}" --item shop-orders --database "postgresql://shop@127.0.0.1:$shop_port?sslmode=prefer" \
    --database-password-file "$work/shop.password"
  in_cluster compare
  shop_rows | cmp - "$work/shop.before" && echo "   database: the same rows"
  printf '   the half in the cluster took %s s\n' "$((SECONDS - began))"
}
