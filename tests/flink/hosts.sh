# Makes this mount, host-name and process namespace a host of its own, then becomes the command.
# hosts.sh NAME FOLDER PROGRAMS COMMAND...: NAME is the host's name, FOLDER what all hosts share, PROGRAMS
# (separated by colons) where what they run lies. /tmp and /dev/shm are the host's own but for these.
set -e
name=$1 folder=$2 programs=$3
shift 3
hostname "$name"
mount --bind "$folder/hosts" /etc/hosts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
kept=()
IFS=: read -ra paths <<< "$folder:$programs"
for path in "${paths[@]}"; do
    if [[ $path == /tmp/* ]]; then
        mkdir "/dev/shm/${#kept[@]}"
        mount --bind "$path" "/dev/shm/${#kept[@]}"
        kept+=("$path")
    fi
done
mount -t tmpfs -o mode=1777 tmpfs /tmp
for i in "${!kept[@]}"; do
    mkdir -p "${kept[$i]}"
    mount --move "/dev/shm/$i" "${kept[$i]}"
    rmdir "/dev/shm/$i"
done
mount -t tmpfs -o mode=1777 tmpfs "$folder/tmp"
exec "$@"
