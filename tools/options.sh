#!/bin/sh
# Writes docs/OPTIONS.md from the program's own --help, so that the page cannot fall behind.
# usage: tools/options.sh [--check]     --check: compare only; exit 1 when the page is stale
set -eu
cd "$(dirname "$0")/.."
page=docs/OPTIONS.md
new=$(mktemp)
trap 'rm -f "$new"' EXIT
{
    echo "# Options"
    echo
    echo "What each command's \`--help\` prints. Written by \`tools/options.sh\`; values in brackets are defaults."
    for command in $(build/quire --help | sed -n 's/^  \([a-z]*\)  .*/\1/p'); do
        case $command in
        bench) kinds=$(build/quire bench --help | sed -n 's/^  \([a-z]*\)  .*/\1/p') ;;
        *) kinds= ;;
        esac
        for kind in ${kinds:--}; do
            [ "$kind" = - ] && kind=
            printf '\n## quire %s\n\n' "$command${kind:+ $kind}"
            # shellcheck disable=SC2086
            env -i build/quire "$command" $kind --help | sed '/^Every option may also be set/d' | sed 's/^\(.\)/    \1/' | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}'
        done
    done
} >"$new"
if [ "${1:-}" = --check ]; then
    diff -u "$page" "$new" || { echo "$page is stale: run tools/options.sh" >&2; exit 1; }
else
    cp "$new" "$page"
fi
