#!/usr/bin/env bash
# schemathesis against the served OpenAPI document, in front of a device that takes no time: tests/contract/run.sh SERVER [schemathesis'
# arguments], where SERVER is ldm-http's example `fake_server`. Installs what it needs into target/contract; wants Python 3 with venv.
set -euo pipefail
cd "$(dirname "$0")/../.."
server="${1:-target/debug/examples/fake_server}"
shift || true
[ -x "$server" ] || { echo "there is no $server; cargo test --workspace --no-run makes it" >&2; exit 1; }
home=target/contract
mkdir -p "$home"
if ! cmp -s tests/contract/requirements.txt "$home/requirements.txt"; then
  python3 -m venv --clear "$home/venv"
  "$home/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/contract/requirements.txt
  cp tests/contract/requirements.txt "$home/requirements.txt"
fi
"$server" > "$home/url" 2> "$home/server.log" &
process=$!
trap 'kill "$process" 2> /dev/null || true' EXIT
for _ in $(seq 100); do [ -s "$home/url" ] && break; sleep 0.1; done
url="$(head -1 "$home/url")"
[ -n "$url" ] || { cat "$home/server.log" >&2; exit 1; }
run() {
  local seed log="$home/run.log"
  for seed in 1 2; do
    "$home/venv/bin/schemathesis" run "$url/openapi.json" --seed "$seed" --suppress-health-check all "$@" 2>&1 | tee "$log" && return
    # Hypothesis' own shrinker may stumble (an IndexError in `try_trivial_spans`): that says nothing of the server.
    if grep -q '^Failures:' "$log" || ! grep -q 'hypothesis/internal/conjecture' "$log"; then return 1; fi
  done
  return 1
}
# Whatever is sent, answers are as described, and nothing breaks.
run --max-time 100 --max-examples 15 --phases examples,coverage,fuzzing --mode all \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance "$@"
# So are pictures themselves, and events.
for form in image/webp text/event-stream; do
  run --max-time 10 --max-examples 15 --phases examples,fuzzing --mode positive --header "accept: $form" --include-tag Pictures \
    --checks not_a_server_error,status_code_conformance,content_type_conformance "$@"
done
# What schemas of bodies forbid is refused. The web UI's clients send null, and more, for what they do not mean.
run --exclude-path-regex '^/(sdapi|internal)/' --max-time 40 --max-examples 15 --phases coverage,fuzzing --mode negative --checks negative_data_rejection --include-method POST "$@"
kill -0 "$process" || { echo "the server ended by itself" >&2; cat "$home/server.log" >&2; exit 1; }
