# shellcheck shell=bash
# Sourced by quickstart and test: makes a fresh machine ready, from the npm and Debian registries alone, and says what it does.
# Every step is skipped where its result is there already.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '==> %s\n' "$*"; }
fail() {
  printf 'obuilder-fs: %s\n' "$*" >&2
  exit 1
}

require_root() {
  [ "$(id -u)" = 0 ] || fail "this needs root (it mounts file systems and makes users); run it with sudo"
}

# require_packages COMMAND-OR-FILE=PACKAGE… : installs the packages whose command or file is missing.
require_packages() {
  local missing=() wanted name package
  for wanted in "$@"; do
    name=${wanted%%=*} package=${wanted#*=}
    if [[ $name == /* ]]; then [ -e "$name" ]; else command -v "$name" >/dev/null; fi || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/tmp/obuilder-fs-apt.$$ 2>&1 || {
    cat /tmp/obuilder-fs-apt.$$ >&2
    fail "apt-get could not install ${missing[*]}; see above"
  }
  rm -f /tmp/obuilder-fs-apt.$$
}

require_node() {
  command -v node >/dev/null || fail "Node.js is missing; install version 20.19 or later (https://nodejs.org)"
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' ||
    fail "Node.js $(node --version) is too old; install version 20.19 or later"
}

check_macos() {
  command -v brew >/dev/null || fail 'Homebrew is missing; install it from https://brew.sh, then run this again'
  require_node
  [ -d /Library/Filesystems/macfuse.fs ] ||
    fail 'macFUSE is missing; run "brew install --cask macfuse", approve its extension in System Settings > Privacy & Security, reboot, then run this again'
  command -v cmake >/dev/null || fail 'cmake is missing; run "brew install cmake pkg-config rsync", then run this again'
}

install_system() {
  if [ "$(uname)" = Darwin ]; then
    check_macos
    return
  fi
  command -v apt-get >/dev/null || fail 'this script knows Debian and macOS only; see docs/install.md for what it would install'
  require_node
  [ -e /dev/fuse ] || fail '/dev/fuse is missing; load the module ("modprobe fuse"), or give the container the device'
  require_packages g++=g++ make=make cmake=cmake pkg-config=pkg-config python3=python3 rsync=rsync \
    /usr/include/fuse3/fuse_lowlevel.h=libfuse3-dev unshare=util-linux useradd=passwd su=util-linux tar=tar ip=iproute2
}

install_modules() {
  if [ node_modules/.package-lock.json -nt package-lock.json ] && [ -d node_modules/yargs ]; then return; fi
  say 'installing npm packages'
  npm ci --ignore-scripts --no-fund --no-audit --loglevel=error
}

# better-sqlite3 finds no prebuilt binary without a wider network, and takes a minute to build.
build_sqlite() {
  node -e 'new (require("better-sqlite3"))(":memory:")' 2>/dev/null && return
  say 'building better-sqlite3 (about a minute)'
  local node_prefix
  node_prefix=$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")
  if [ -e "$node_prefix/include/node/node.h" ]; then export npm_config_nodedir=$node_prefix; fi
  npm rebuild better-sqlite3 --loglevel=error >/tmp/obuilder-fs-sqlite.$$ 2>&1 || {
    cat /tmp/obuilder-fs-sqlite.$$ >&2
    fail 'better-sqlite3 did not build; see above'
  }
  rm -f /tmp/obuilder-fs-sqlite.$$
}

build_package() {
  say 'building obuilder-fs'
  node scripts/build-native.js
  npx --no-install tsc -p tsconfig.build.json
}

prepare() {
  install_system
  install_modules
  build_sqlite
  build_package
}
