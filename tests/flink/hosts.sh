# Makes this mount, host-name and process namespace a host of its own, then becomes the command.
# hosts.sh NAME FOLDER COMMAND...: NAME is the host's name, FOLDER what all hosts share.
set -e
hostname "$1"
mount --bind "$2/hosts" /etc/hosts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir /dev/shm/shared
mount --bind "$2" /dev/shm/shared
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p "$2"
mount --move /dev/shm/shared "$2"
rmdir /dev/shm/shared
mount -t tmpfs -o mode=1777 tmpfs "$2/tmp"
shift 2
exec "$@"
