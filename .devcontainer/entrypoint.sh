#!/usr/bin/env bash
# The first process of the workspace: it gives the user `dev` the uid and gid of the workspace's owner, and then waits.
#
# Files that `dev` creates in the workspace must belong to its owner outside. If the owner is root (on a root host, or with
# a rootless engine, where root stands for the user), `dev` becomes root too.
set -euo pipefail

ready=/run/workspace-ready
rm -f "$ready"

# An editor that clones into a volume mounts it at /workspaces.
workspace=/workspace
for found in /workspaces/*/.devcontainer; do
  [[ -d $found ]] && workspace=${found%/.devcontainer}
done

as_dev() { setpriv --reuid=dev --regid=dev --init-groups "$@"; }
# As `dev`, because some file systems show every user as the owner.
owner() { as_dev stat --format "$1" "$2"; }

# Whether files that `dev` creates there belong to the workspace's owner.
fits_in() {
  local probe
  [[ $(owner %u "$workspace") == "$(id -u dev)" ]] && return
  probe=$(as_dev mktemp "$workspace/.workspace-XXXXXX" 2>/dev/null) || return
  [[ $(owner %u "$probe") == "$(owner %u "$workspace")" ]]
  local result=$?
  rm -f "$probe"
  return $result
}

# A volume of the engine has no owner outside.
is_volume() {
  local mount
  mount=$(findmnt --noheadings --first-only --output FSROOT --target "$workspace")
  [[ $mount =~ /volumes/[^/]+/_data(/|$) ]]
}

if ! fits_in; then
  if is_volume; then
    chown --recursive dev:dev "$workspace"
  else
    IFS=: read -r uid gid < <(stat --format %u:%g "$workspace")
    groupmod --non-unique --gid "$gid" dev
    # usermod refuses to change a user with running processes, and every process of uid 0 counts for root.
    sed --in-place "s/^dev:x:[0-9]*:[0-9]*:/dev:x:$uid:$gid:/" /etc/passwd
  fi
fi

# A volume keeps its first owner, but the workspace may belong to somebody else now.
if [[ $(stat --format %u:%g /home/dev) != "$(id -u dev):$(id -g dev)" ]]; then
  chown --recursive --no-dereference dev:"$(id -g dev)" /home/dev
fi
# Not in the workspace: in a worktree, every git command fails, because its repository is not mounted.
(cd / && git config --system --replace-all safe.directory "$workspace")

socket=/var/run/docker.sock
if [[ -S $socket ]]; then
  gid=$(stat --format %g "$socket")
  getent group "$gid" >/dev/null || groupadd --gid "$gid" docker-outside
  usermod --append --groups "$(getent group "$gid" | cut --delimiter : --fields 1)" dev
fi

touch "$ready"

# Bash, as the first process, reaps orphans.
trap 'exit 0' TERM INT
"$@" &
wait $!
