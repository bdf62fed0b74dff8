#!/usr/bin/env bash
# Make sure that the programs are there that the tests use besides Python packages: Chromium, sshd, openssl, zsh, gVisor,
# stress-ng.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

has_chromium() { has chromium || has chromium-browser || has google-chrome || playwright_has_one; }

playwright_has_one() {
    "$repo/.venv/bin/python" - 2>/dev/null <<'PYTHON'
import pathlib
import sys

from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    sys.exit(not pathlib.Path(playwright.chromium.executable_path).exists())
PYTHON
}

if has_chromium; then
    say "Chromium is there"
elif ! debian_root; then
    say "no Chromium here: the browser tests need it ('.venv/bin/playwright install chromium')"
elif grep -q '^ID=ubuntu' /etc/os-release; then
    say "installing Chromium" # Ubuntu's package needs snapd
    "$repo/.venv/bin/playwright" install --with-deps chromium >"$cache/chromium.log" 2>&1 </dev/null ||
        fail "playwright could not install Chromium (see $cache/chromium.log)"
else
    apt_install chromium
fi

# The tests start an sshd of their own; that of the system must not start because of us.
if debian_root && ! has sshd; then
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        trap 'rm -f "$policy"' EXIT
    fi
    apt_install openssh-server openssh-client
fi
if debian_root && ! has openssl; then
    apt_install openssl
fi
if debian_root && ! has zsh; then
    apt_install zsh
fi
if debian_root && ! has runsc; then
    # The program only: the tests register it with a dockerd of their own. Not every release has it.
    (apt_install runsc) || say "no runsc here: the tests of gVisor will fail"
fi
if debian_root && ! has stress-ng; then
    apt_install stress-ng
fi
