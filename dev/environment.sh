# Sourced by dev/test and dev/demo. `prepare_environment` changes to the root of the checkout and leaves a working
# .venv there: made from a Python >= 3.11, with the versions of dev/constraints.txt and nestlearn itself as an editable
# install. It costs nothing when neither pyproject.toml nor the constraints nor the version, which is among what is
# installed, changed since the last time.
# `prepare_environment hosts` adds the extras hosts, log, eval and notebook, and timm, which the environment then keeps.

say() { printf '%s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}

# Prints the first Python that is new enough; NESTLEARN_PYTHON, when set, is the only candidate.
find_python() {
    local candidate
    local candidates=(python3 python3.13 python3.12 python3.11 python3.14 python)
    [[ -n "${NESTLEARN_PYTHON:-}" ]] && candidates=("$NESTLEARN_PYTHON")
    for candidate in "${candidates[@]}"; do
        # Run it, as a name on the PATH may be a shim of a version that is not installed.
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "expected Python 3.11 or newer; none of these is: ${candidates[*]}." \
        "Install one, or name it: NESTLEARN_PYTHON=/path/to/python3.12 bash dev/test"
}

# Makes .venv with a working pip.
make_environment() {
    local python
    python="$(find_python)"
    say "Making .venv with $("$python" --version)"
    rm -rf .venv
    if "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        "$python" -m venv .venv
    elif "$python" -m pip --python "$python" --version >/dev/null 2>&1 && "$python" -m venv --without-pip .venv; then
        # Some Linux distributions leave ensurepip out; a pip outside the environment (22.3 or newer) can fill it.
        "$python" -m pip --python .venv/bin/python install pip
    else
        rm -rf .venv
        fail "$python can not make a virtual environment: its module venv or ensurepip is missing." \
            "Install it (Debian, Ubuntu: apt install python3-venv), or name another Python in NESTLEARN_PYTHON."
    fi
}

# Takes the extras, separated by commas.
install_packages() {
    local pip=(.venv/bin/python -m pip --disable-pip-version-check install --no-input -c dev/constraints.txt)
    say "Installing the packages of dev/constraints.txt into .venv (a few minutes the first time)"
    # torch first and by its exact version: some package indexes answer a plain "torch" with a much larger build.
    "${pip[@]}" "$(grep '^torch==' dev/constraints.txt)"
    # The build tool comes from the constraints too, hence no build isolation.
    "${pip[@]}" hatchling editables
    "${pip[@]}" --no-build-isolation -e ".[$1]"
    # timm asks for torchvision, for images in files, and a package index need not have one of torch's own build: with
    # a CPU's torch one for CUDA cannot be imported, and breaks transformers too. The tests read no files.
    if [[ ",$1," == *,hosts,* ]]; then
        "${pip[@]}" --no-deps timm
    fi
}

prepare_environment() {
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    # Packages from outside would hide the pinned ones.
    unset PYTHONPATH PYTHONHOME
    # The second line of a stamp has the extras: what was added once is renewed with the rest, whoever asks.
    local wanted extras=cli,cluster,explore,search,dev
    if [[ "${1:-}" == hosts ]] || sed -n 2p .venv/stamp 2>/dev/null | grep -q hosts; then
        extras+=,hosts,log,eval,notebook
    fi
    # Where the checkout lies is part of the stamp, since an environment can not be moved.
    wanted="$(printf '%s\n' "$PWD" "$extras"; cat pyproject.toml dev/constraints.txt src/nestlearn/version.py)"
    if ! .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        make_environment
    elif [[ -f .venv/stamp && "$(cat .venv/stamp)" == "$wanted" ]]; then
        return
    elif [[ -f .venv/stamp && "$(head -n 1 .venv/stamp)" != "$PWD" ]]; then
        make_environment
    fi
    rm -f .venv/stamp
    install_packages "$extras"
    printf '%s\n' "$wanted" >.venv/stamp
}
