#!/bin/sh
# SPDX-License-Identifier: MIT
# Print an interpreter that can build pyvnet: Python 3.11 or newer with venv,
# pip and the C headers, and a C compiler beside it.  As root on a Debian-like
# machine what is missing is installed; otherwise it is named.
set -eu

usable() {
	"$1" - 2>/dev/null <<'PYTHON'
import ensurepip, pathlib, sys, sysconfig, venv
header = pathlib.Path(sysconfig.get_paths()["include"], "Python.h")
sys.exit(not (sys.version_info >= (3, 11) and header.exists()))
PYTHON
}

find_python() {
	for name in ${PYTHON:-} python3 python3.11 python3.12 python3.13 python3.14; do
		if command -v "$name" >/dev/null && usable "$name"; then
			command -v "$name"
			return 0
		fi
	done
	return 1
}

if find_python >/dev/null && command -v "${CC:-gcc}" >/dev/null; then
	find_python
	exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	{
		apt-get update -q
		DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
			python3 python3-venv python3-dev gcc libc6-dev
	} >&2
	if find_python; then
		exit 0
	fi
fi
echo "make setup needs: Python 3.11 or newer with venv and pip, its C headers (Python.h), and gcc." >&2
echo "On Debian 12 and later: apt-get install python3-venv python3-dev gcc" >&2
exit 1
