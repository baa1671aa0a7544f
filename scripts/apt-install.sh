#!/bin/sh
# Installs a Debian package and starts none of its services. Fails where there is no apt-get or no right to use it.
set -eu

package=$1
command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ] || exit 1
echo "Installing Debian's $package ..."

log=$(mktemp)
policy=/usr/sbin/policy-rc.d  # what Debian asks before it starts a service; 101 is "no"
ours=''
tidy_up() { rm -f "$log" ${ours:+"$policy"}; }
trap tidy_up EXIT
trap 'exit 1' HUP INT TERM
if [ ! -e "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -qq -o DPkg::Lock::Timeout=120 "$@" >>"$log" 2>&1; }
if ! { apt update && apt install -y --no-install-recommends "$package"; }; then
    cat "$log" >&2
    exit 1
fi
if [ -e "/etc/init.d/$package" ]; then
    update-rc.d "$package" disable >/dev/null 2>&1 || true  # nor at the next start of the machine
fi
