#!/bin/sh
# SPDX-License-Identifier: MIT
# need.sh PACKAGE=PROBE …: see that each PROBE (a command, or an absolute file
# name, which may be a pattern) is there.  As root install the Debian packages
# of those that are not; otherwise name them and fail.
set -eu

present() {
	case $1 in
	/*) set -- $1 && [ -e "$1" ] ;;
	*) command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] ;;
	esac
}

missing=""
for pair in "$@"; do
	present "${pair#*=}" || missing="$missing ${pair%%=*}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	exec 9<"$0" && flock 9 # apt-get does not wait for another
	{
		apt-get update -q
		# shellcheck disable=SC2086
		DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
	} >&2
	exit 0
fi
echo "missing Debian packages:$missing (apt-get install$missing)" >&2
exit 1
