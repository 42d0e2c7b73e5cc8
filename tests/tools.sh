#!/usr/bin/env bash
# Installs the programs that some tests need, where that is possible, and says what it does before it does it.
# Where it is not possible, the tests that need them are named as not run; under CI=true that is a failure.
set -euo pipefail

# program, Debian's package
tools=(
  "chromium chromium"
  "firefox-esr firefox-esr"
  "pulseaudio pulseaudio"
  "turnserver coturn"
  "redis-server redis-server"
  "flite flite"
)

missing() {
  local tool
  for tool in "${tools[@]}"; do
    read -r program package <<< "$tool"
    PATH="$PATH:/usr/sbin:/sbin" command -v "$program" > /dev/null || echo "$package"
  done
  # Debian keeps PostgreSQL's programs off the PATH.
  compgen -G "/usr/lib/postgresql/*/bin/initdb" > /dev/null || command -v initdb > /dev/null || echo postgresql
  # A library, no program: its copy in the PyAV wheel serves, so this is for testing that both are found.
  PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2> /dev/null | grep 'libopus\.so\.0' > /dev/null || echo libopus0
}

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  as_root=(sudo -n)
fi

mapfile -t packages < <(missing)
if [ "${#packages[@]}" -eq 0 ]; then
  exit 0
fi

if command -v apt-get > /dev/null && "${as_root[@]}" true 2> /dev/null; then
  echo "The tests need ${packages[*]}: installing with apt-get."
  log=$(mktemp)
  "${as_root[@]}" apt-get update < /dev/null > "$log" 2>&1 || tail -n 20 "$log" >&2
  # A name that a distribution does not know (Ubuntu has no firefox-esr) would keep out all the others.
  mapfile -t packages < <(for package in "${packages[@]}"; do
    apt-cache show --no-all-versions "$package" > /dev/null 2>&1 && echo "$package"
  done)
  if [ "${#packages[@]}" -gt 0 ] && ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${packages[@]}" < /dev/null > "$log" 2>&1; then
    tail -n 20 "$log" >&2
  fi
  rm -f "$log"
  mapfile -t packages < <(missing)
fi

if [ "${#packages[@]}" -gt 0 ]; then
  echo "Not installed, and cannot be installed here: ${packages[*]}. The tests that need them are not run." >&2
  if [ "${CI:-}" = true ]; then
    exit 1
  fi
fi
