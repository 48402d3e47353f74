#!/bin/bash
# A real object store on the loopback for `make test-s3`: OpenStack Swift with its S3 interface, from Debian
# (apt-get install swift-proxy swift-account swift-container swift-object memcached).
# Usage: swift.sh FOLDER COMMAND...   starts it in FOLDER, runs COMMAND with HEADSTART_TEST_S3 set, stops it.
set -euo pipefail
FOLDER=$(realpath -m "$1"); shift
for program in swift-proxy-server swift-ring-builder memcached; do
    command -v "$program" > /dev/null || {
        echo "test-s3: $program is absent; apt-get install swift-proxy swift-account swift-container swift-object memcached" >&2
        exit 2
    }
done
mkdir -p "$FOLDER"/{etc,disks/d1,run,cache}
export SWIFT_ROOT=$FOLDER
PORT=8765
cat > "$FOLDER/etc/swift.conf" <<CONF
[swift-hash]
swift_hash_path_suffix = headstart
swift_hash_path_prefix = test
[storage-policy:0]
name = only
default = yes
CONF
for kind in account container object; do
    case $kind in account) port=8766 ;; container) port=8767 ;; object) port=8768 ;; esac
    cat > "$FOLDER/etc/$kind.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $port
devices = $FOLDER/disks
swift_dir = $FOLDER/etc
mount_check = false
workers = 1
user = $(id -un)
recon_cache_path = $FOLDER/cache
fallocate_reserve = 0
disable_fallocate = true
[pipeline:main]
pipeline = $kind-server
[app:$kind-server]
use = egg:swift#$kind
CONF
    (cd "$FOLDER/etc" && swift-ring-builder $kind.builder create 6 1 1 && swift-ring-builder $kind.builder add "r1z1-127.0.0.1:$port/d1" 1 \
        && swift-ring-builder $kind.builder rebalance) > "$FOLDER/rings.log"
done
cat > "$FOLDER/etc/proxy.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $PORT
swift_dir = $FOLDER/etc
workers = 2
user = $(id -un)
[pipeline:main]
pipeline = catch_errors proxy-logging healthcheck cache listing_formats bulk s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:11765
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
CONF
PIDS=()
stop() { kill "${PIDS[@]}" 2> /dev/null || true; }
trap stop EXIT
memcached -l 127.0.0.1 -p 11765 -u "$(id -un)" > "$FOLDER/memcached.log" 2>&1 & PIDS+=($!)
for kind in account container object proxy; do
    swift-$kind-server "$FOLDER/etc/$kind.conf" > "$FOLDER/$kind.log" 2>&1 & PIDS+=($!)
done
for _ in $(seq 300); do
    curl --silent --fail "http://127.0.0.1:$PORT/healthcheck" > /dev/null && break
    sleep 0.2
done
curl --silent --fail "http://127.0.0.1:$PORT/healthcheck" > /dev/null || { echo "test-s3: Swift did not start; see $FOLDER/*.log" >&2; exit 1; }
export HEADSTART_TEST_S3=http://127.0.0.1:$PORT HEADSTART_TEST_S3_KEY=test:tester HEADSTART_TEST_S3_SECRET=testing
"$@"
