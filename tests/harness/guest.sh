#!/bin/sh
# Makes a guest for QEMU in a folder: vmlinuz (Debian's cloud kernel) and initrd.gz (busybox, virtio_net).
# usage: guest.sh FOLDER. The guest reads `ip=A/LEN` (or `ip=dhcp`) and `ping=B` from its command line, and answers
# pings; what comes to its TCP port 7 it sends back. With `get=ADDRESS/PORT/BYTES` it asks a server of talk.py for
# a file and tells its digest; with `echo=A` it sends 3 MB to port 7 of A and tells whether the same comes back.
set -eu
out=$1
[ -s "$out/vmlinuz" ] && [ "$out/initrd.gz" -nt "$0" ] && exit 0
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
apt-get update -qq >/dev/null 2>&1 || true
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
[ -n "$kernel" ] || { echo "apt knows no linux-image-cloud-amd64" >&2; exit 1; }
apt-get download -qq "$kernel" >/dev/null
dpkg-deb -x ./*.deb tree
mkdir -p root/bin root/proc root/sys root/modules
cp "$(command -v busybox)" root/bin/busybox
ln -s busybox root/bin/sh
modules=$(find tree -type d -path '*/kernel/drivers' | head -n 1)
for name in failover net_failover virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_net; do
    file=$(find "$modules/.." -name "$name.ko*" | head -n 1)
    [ -n "$file" ] || continue
    case $file in
    *.xz) xz -dc "$file" >"root/modules/$name.ko" ;;
    *) cp "$file" "root/modules/$name.ko" ;;
    esac
done
cat >root/init <<'INIT'
#!/bin/sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mkdir -p /dev
$b mount -t devtmpfs dev /dev
for m in failover net_failover virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_net; do
    [ -e /modules/$m.ko ] && $b insmod /modules/$m.ko
done
for word in $($b cat /proc/cmdline); do
    case $word in
    ip=*) address=${word#ip=} ;;
    ping=*) target=${word#ping=} ;;
    get=*) get=${word#get=} ;;
    echo=*) echo=${word#echo=} ;;
    esac
done
$b ip link set lo up
$b ip link set eth0 up
if [ "$address" = dhcp ]; then
    $b udhcpc -i eth0 -n -q -t 10 -s /bin/leased || echo "NO LEASE"
else
    $b ip address add "$address" dev eth0
fi
echo "GUEST READY $address"
while :; do $b nc -l -p 7 -e $b cat; done &
if [ -n "${get-}" ]; then
    server=${get%%/*} rest=${get#*/}
    echo "get ${rest#*/}" | $b nc -w 20 "$server" "${rest%%/*}" | $b sha256sum | $b sed 's/^/GOT /'
fi
if [ -n "${echo-}" ]; then
    $b head -c 3000000 /dev/urandom >/sent
    until $b ping -c 1 -W 1 "$echo" >/dev/null; do $b sleep 1; done
    $b nc -w 5 "$echo" 7 </sent >/back
    $b cmp /sent /back && echo "ECHO the same" || echo "ECHO other"
fi
$b ping -c 100000 -i 1 "$target"
$b poweroff -f
INIT
cat >root/bin/leased <<'LEASED'
#!/bin/sh
b=/bin/busybox
[ "$1" = bound ] || exit 0
$b ip address add "$ip/$mask" dev "$interface"
[ -z "$router" ] || $b ip route add default via ${router%% *}
echo "ADDRESS $ip"
LEASED
chmod +x root/init root/bin/leased
(cd root && find . | cpio -o -H newc --quiet | gzip -9) >initrd.gz
cp tree/boot/vmlinuz-* "$out/vmlinuz.new"
cp initrd.gz "$out/initrd.gz"
mv "$out/vmlinuz.new" "$out/vmlinuz"
