#!/bin/sh
# Installs the Debian or Ubuntu packages that are missing.  usage: deps.sh build|test ...
set -eu

build="gcc cmake ninja-build pkg-config libmicrohttpd-dev libgnutls28-dev libjansson-dev libpcre2-dev libutf8proc-dev
       libxxhash-dev libhwloc-dev libcurl4-openssl-dev libyaml-dev libcmocka-dev"
test="python3 clang nodejs npm curl openssl"

wanted=
for set in "$@"; do
    case $set in
    build) wanted="$wanted $build" ;;
    test) wanted="$wanted $test" ;;
    *) echo "deps.sh: unknown set '$set'" >&2; exit 2 ;;
    esac
done

have() {
    case $1 in
    # A tool that came another way (node from nodejs.org, say) is as good as the package.
    chromium) command -v chromium >/dev/null 2>&1 && return 0 ;;
    gcc | cmake | clang | npm | curl | openssl | python3) command -v "$1" >/dev/null 2>&1 && return 0 ;;
    nodejs) command -v node >/dev/null 2>&1 && return 0 ;;
    ninja-build) command -v ninja >/dev/null 2>&1 && return 0 ;;
    pkg-config) command -v pkg-config >/dev/null 2>&1 && return 0 ;;
    esac
    dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'
}

missing=
for package in $wanted; do
    have "$package" || missing="$missing $package"
done

# libFuzzer and the sanitizers of clang are in a package named after its version.
case " $* " in
*" test "*)
    if command -v clang >/dev/null 2>&1; then
        major=$(clang -dumpversion | cut -d. -f1)
        have "libclang-rt-$major-dev" || missing="$missing libclang-rt-$major-dev"
    fi ;;
esac

# The page's tests want a browser.  Ubuntu's package only fetches a snap, so there they are skipped unless a Chromium is installed.
case " $* " in
*" test "*)
    if grep -q '^ID=debian' /etc/os-release 2>/dev/null; then
        have chromium || missing="$missing chromium"
    fi ;;
esac

[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "quire needs these packages (Debian names), and there is no apt-get to install them:$missing" >&2
    exit 1
fi
as_root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "quire needs these packages; install them as root: apt-get install$missing" >&2
        exit 1
    fi
    as_root=sudo
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# shellcheck disable=SC2086
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null

# A clang that was just installed tells only now which runtime it wants.
case " $* $missing " in
*" clang "*) exec "$0" "$@" ;;
esac
