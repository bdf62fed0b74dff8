#!/usr/bin/env bash
# Make .venv and install this package into it, editable, with the extra that is named: demo or test.
#
# Uses the newest Python from 3.11 on (PYTHON=... chooses another) and installs only when pyproject.toml changed.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

extra=${1:?usage: scripts/venv.sh EXTRA}
venv=$repo/.venv
cd "$repo"

# Print "VERSION PROGRAM" if it is a Python that will do. pyenv's shims exist for versions that do not run.
qualifies() {
    "$1" -c 'import sys; v = sys.version_info; print(f"{v[0]}{v[1]:03}", sys.argv[1]); sys.exit(v < (3, 11))' "$1" \
        2>/dev/null
}

can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Print the newest Python that will do; of equals, the plain python3.
find_python() {
    local candidate line best=0 python=
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 /usr/bin/python3}; do
        line=$(qualifies "$candidate") || continue
        [[ $# -eq 0 ]] || can_make_venv "$candidate" || continue
        if ((${line%% *} > best)); then
            best=${line%% *} python=$candidate
        fi
    done
    printf '%s\n' "$python"
}

make_venv() {
    local python
    python=$(find_python with-venv)
    if [[ -z $python ]]; then
        [[ -n $(find_python) ]] || fail "Python 3.11 or newer is needed: install it, or name it with PYTHON=..."
        # Debian and Ubuntu keep ensurepip in a package of its own.
        apt_install python3-venv
        python=$(find_python with-venv)
        [[ -n $python ]] || fail "'$(find_python) -m venv' does not work: install its venv module, or set PYTHON=..."
    fi
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear "$venv" || fail "'$python -m venv $venv' failed"
    echo "$repo" >"$venv/made-for"
}

# A folder that was moved has a .venv whose programs point to the old place; an interrupted run left half a one.
if [[ $(cat "$venv/made-for" 2>/dev/null) != "$repo" ]] || ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    make_venv
fi

stamp=$venv/installed-$extra
if [[ $stamp -nt pyproject.toml ]]; then
    say ".venv is up to date"
    exit
fi
say "installing sandbox-magic[$extra] into .venv (the first time takes a minute or two)"
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input --editable ".[$extra]" </dev/null ||
    fail "pip could not install sandbox-magic[$extra] (its own message is above)"
touch "$stamp"
[[ $extra != test ]] || touch "$venv/installed-demo" # test includes demo
