"""Make a thumbnail of an image from the Internet; AVATAR_URL is its address."""

import os
import sys

from sandbox_magic import CommandFailed, Sandbox, SandboxError

avatar = {"AVATAR_URL": os.environ.get("AVATAR_URL", "https://example.com/avatar.jpg")}
try:
    with Sandbox("debian:stable-slim") as box:
        box.run("apt-get -qq update", network=True, check=True, echo=True)
        box.run("apt-get -qq install -y graphicsmagick wget", network=True, check=True, echo=True)
        box.run('wget -q -O avatar.jpg "$AVATAR_URL"', env=avatar, network=True, check=True)
        box.run('gm convert -size 120x120 avatar.jpg -resize 120x120 +profile "*" thumbnail.jpg', check=True)
        box.get("thumbnail.jpg", ".")
except CommandFailed as error:
    sys.exit(f"{error.cmd} ended with exit code {error.exit_code}: {error.stderr}")
except SandboxError as error:
    sys.exit(f"no sandbox: {error}")
