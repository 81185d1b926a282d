#!/bin/bash
# box.sh TREE BOX: on the hypervisor: make a box for vagrant-libvirt of a Debian tree, with a disk that
# boots by itself. Nothing is mounted: the file system is written by mke2fs, and GRUB is put where
# grub-install would put it, its core image into the gap before the only partition.
set -euo pipefail

tree=$1 box=$2
work=$(mktemp -d /var/tmp/box-XXXXXX)
trap 'rm -rf "$work"' EXIT
gigabytes=4
sectors=2048 # before the partition
disk=$work/disk

truncate --size="${gigabytes}G" "$disk"
sfdisk --quiet "$disk" <<<"start=$sectors, type=83, bootable"
mke2fs -q -t ext4 -L root -d "$tree" -E offset=$((sectors * 512)) \
    "$disk" $((gigabytes * 1024 * 1024 - sectors / 2))k

grub-mkimage --format=i386-pc --prefix='(hd0,msdos1)/boot/grub' --output="$work/core.img" \
    biosdisk part_msdos ext2 normal linux boot
dd if=/usr/lib/grub/i386-pc/boot.img of="$disk" bs=440 count=1 conv=notrunc status=none
dd if="$work/core.img" of="$disk" bs=512 seek=1 conv=notrunc status=none

qemu-img convert -O qcow2 "$disk" "$work/box.img"
printf '{"provider": "libvirt", "format": "qcow2", "virtual_size": %d}\n' "$gigabytes" >"$work/metadata.json"
tar --create --directory="$work" --file="$box" metadata.json box.img
