#!/usr/bin/env bash
# Published clients against a running server: tests/clients/run.sh [BINARY] [pytest's arguments]. Installs what it needs into
# target/clients; wants Python 3 with venv, Node.js with npm, curl, and nginx.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LATENTD="${1:-target/debug/latentd}"
shift || true
[ -x "$LATENTD" ] || { echo "there is no $LATENTD; cargo build -p latentd makes it" >&2; exit 1; }
home=target/clients
mkdir -p "$home"
if ! cmp -s tests/clients/requirements.txt "$home/requirements.txt"; then
  python3 -m venv --clear "$home/venv"
  "$home/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
  cp tests/clients/requirements.txt "$home/requirements.txt"
fi
if ! cmp -s tests/clients/package.json "$home/package.json"; then
  cp tests/clients/package.json "$home/package.json.new"
  rm -rf "$home/node_modules" "$home/package-lock.json"
  mv "$home/package.json.new" "$home/package.json"
  npm install --prefix "$home" --silent --no-audit --no-fund || { rm -f "$home/package.json"; exit 1; }
fi
export LD_LIBRARY_PATH="$PWD/libtorch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$home/venv/bin/pytest" -q -p no:cacheprovider -c /dev/null --rootdir tests/clients tests/clients "$@"
