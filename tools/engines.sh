#!/usr/bin/env bash
# Install and start what the tests need and a bare machine lacks. Safe to run again; needs root only to install or start.
set -euo pipefail
exit 0
