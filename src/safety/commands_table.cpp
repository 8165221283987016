// Programs of which a row tells enough: which options and operands name files to read, write or delete, commands to run, hosts; and what the program does by itself.
#include <algorithm>
#include <array>
#include <memory>
#include <unordered_map>
#include <utility>

#include "safety/commands_model.h"

namespace hearth::safety {
namespace {

// names | options (see Grammar) | operands | effect and reason
// Operands: roles in order; "R*" all that are left; "R* W" all but the last; "cmd" the rest is a command; "sub" the first operands are a subcommand, with rows of its own
// ("docker ps"); "+" the effect holds only when there is an operand. A row without operands scans them.
// NOLINTBEGIN(bugprone-suspicious-missing-comma): long rows go on in the next line
constexpr std::string_view rows[] = {
    // ---- reading and printing text
    "cat,tac,nl,rev,zcat,bzcat,xzcat,zstdcat,lzcat,gzcat,bat,batcat||R*|",
    "head,tail|-n,--lines=_ -c,--bytes=_ -s,--sleep-interval=_ --pid=_|R*|",
    "less,more,most,pg,zless,bzless,zmore|-o,-O,--log-file,--LOG-FILE=W -k,--lesskey-file=R -p,--pattern=_ -t,--tag=_|R*|",
    "wc,md5sum,sha1sum,sha224sum,sha256sum,sha384sum,sha512sum,b2sum,cksum,sum,shasum,md5,crc32,xxhsum|--files0-from=R -a=_|R*|",
    "od,hexdump,hd,strings|-f=R -e=_ -n,--length=_ -N=_ -j=_ -t=_ -A=_ -w?=_|R*|",
    "sort|-o,--output=W -k,--key=_ -t,--field-separator=_ -S,--buffer-size=_ -T,--temporary-directory=F --compress-program=P "
    "--files0-from=R --random-source=R --parallel=_|R*|",
    "uniq|-f=_ -s=_ -w=_|R W|",
    "cut,paste,expand,unexpand,fmt,fold,pr,column,colrm,ul,look,tsort,join,comm,numfmt,cmp,nkf,iconv_,csvlook,csvcut,csvstat,csvsort,xsv,"
    "mlr,miller,yq,xq,jo,gron,fx,dasel,htmlq,pup,"
    "ansi2txt,soelim,bc_,vis,unvis,rs,lam,jot,datamash,pygmentize,chroma,glow,mdcat,hexyl,xmllint,jless,delta,zdiff,zcmp,bzcmp,xzcmp,"
    "xzdiff|-d,--delimiter=_ -f,--fields=_ -c,--characters=_ -b,--bytes=_ "
    "-w,--width=_ -t=_ -s=_ -n=_ -l=_ -o,--output=W|R*|",
    "iconv|-f,--from-code=_ -t,--to-code=_ -o,--output=W|R*|",
    "shuf|-n,--head-count=_ -i,--input-range=_ -o,--output=W --random-source=R -e,--echo|R*|",
    "tr,yes,seq,printenv_,logger_||_*|",
    "csplit|-f,--prefix=F -n,--digits=_ -b=_|R _*|",
    "split|-l,--lines=_ -b,--bytes=_ -n,--number=_ -a=_ -C=_ --filter=X -f,--prefix=_|R W|",
    "diff,diff3,sdiff,colordiff,wdiff,icdiff,vimdiff_,bsdiff|-U=_ -u -x,--exclude=_ -I=_ --label=_ -o,--output=W --diff-program=P "
    "--from-file=R --to-file=R|R*|",
    "patch|-p,--strip=_ -i,--input=R -o,--output=W -d,--directory=? -r,--reject-file=W -e,--ed --dry-run|W R|",
    "grep,egrep,fgrep,zgrep,bzgrep,xzgrep,ugrep,pcregrep|-e,--regexp=_ -f,--file=R -m,--max-count=_ -A,--after-context=_ "
    "-B,--before-context=_ -C,--context=_ --include=_ --exclude=_ --exclude-dir=_ "
    "--exclude-from=R --color?=_ --colour?=_ -d,--directories=_ -D,--devices=_ --label=_ --binary-files=_ "
    "-r,-R,--recursive,--dereference-recursive|_ T*|",
    "rg,ag,ack,sift,pt|-e,--regexp=_ -f,--file=R -g,--glob=_ --iglob=_ -t,--type=_ -T,--type-not=_ -m,--max-count=_ -A=_ -B=_ -C=_ --pre=X "
    "--pre-glob=_ -d,--max-depth=_ -r,--replace=_ --sort=_ --pager=X "
    "--hostname-bin=P --colors=_ -j=_ --type-add=_ -M=_ -E=_ --ignore-file=R --output=_|_ T*|",
    "jq|-f,--from-file=R --arg=_ --argjson=_ --slurpfile=_ --rawfile=_ --indent=_ -L=?|_ R*|",
    "file|-f,--files-from=R -m,--magic-file=R -F=_|_*|list",
    "stat,du,ls,dir,vdir,tree,exa,eza,lsd,realpath,readlink,namei,getfacl,lsattr,pathchk,mountpoint,df,ncdu,dust,duf,cksfv,broot|-I=_ "
    "--ignore=_ --block-size=_ -d,--max-depth=_ -L=_ -P=_ --time-style=_ --color?=_ "
    "-c,--format=_ --printf=_ --exclude=_ -t,--type=_ -x --sort=_ --time=_ -w=_ -f=_ --files0-from=R -o=_|_*|list",
    "vdir_||_*|list",
    "echo,print||_*|",
    "printf|-v=_|_*|",
    // ---- making and changing files
    "touch|-t=_ -d,--date=_ -r,--reference=_ --time=_|M*|",
    "mkdir|-m,--mode=_ -Z?=_|M*|",
    "mkfifo,mktemp|-m,--mode=_ -p,--tmpdir?=F -t -d -u --suffix=_|M*|",
    "mknod|-m,--mode=_|M _*|privilege_escalation makes a device file",
    "dos2unix,unix2dos,mac2unix|-n,--newfile|W*|",
    "sponge|-a|W*|",
    "ex_||W*|",
    "rename,prename,mmv,rename.ul,vidir,qmv|-e=_ -n|_ W*|",
    "sync,fsync||_*|compute",
    "fallocate|-l,--length=_ -o,--offset=_|W*|",
    "setfacl|-m,--modify=_ -x,--remove=_ -M,--modify-file=R -X=R --restore=R -R,--recursive|W*|",
    "gzip,gunzip,bzip2,bunzip2,xz,unxz,zstd,unzstd,lz4,lzma,unlzma,lzip,lzop,compress,uncompress,pigz,unpigz,pbzip2,brotli,pixz|-S,--"
    "suffix=_ -o,--output=W -c,--stdout,--to-stdout -T=_ -D=R|W*|",
    "unzip|-d=F -x=_ -P=_ -l -t -p -Z -K!privilege_escalation|R _*|write unpacks an archive",
    "unrar,rar,unar,lsar,7z,7za,7zr,p7zip,unarj,arj,zoo,cabextract,dpkg-deb,ar,unsquashfs,rpm2cpio|-o=F -d=F|sevenzip|",
    "cpio|-o,--create -i,--extract -p,--pass-through -F,--file=R -I=R -O=W -D,--directory=F -H,--format=_ --rsh-command=X -E=R|_*|write "
    "packs or unpacks an archive",
    "pax|-f=R -w -r -s=_ -x=_|T*|write packs or unpacks an archive",
    "mksquashfs,genisoimage,mkisofs,xorriso|-o,--output=W -sort=R -V=_|T*|",
    "convert,magick,mogrify,identify,montage,composite,ffmpeg,ffprobe,ffplay,sox,lame,flac,oggenc,opusenc,pandoc,qpdf,pdftk,gs,pdftotext,"
    "pdfunite,pdfseparate,pdfimages,wkhtmltopdf,rsvg-convert,inkscape,exiftool,optipng,"
    "pngquant,jpegoptim,cwebp,dwebp,gifsicle,svgo,mediainfo,mkvmerge,mp3info,img2pdf,ps2pdf,tesseract,soffice,libreoffice,dot,neato,"
    "plantuml,mermaid,mmdc,asciidoctor,markdown|-i=R -o,--output=W -L,--lua-filter=I "
    "-F,--filter=P|?*|execute converts files",
    "xxd|-r -p -s=_ -l=_ -c=_ -g=_|R W|",
    "base64,base32,base58,basenc,uuencode,uudecode,ascii85|-d,--decode,-D -w,--wrap=_ -i,--input=R -o,--output=W|R*|",
    "gpg,gpg2|-o,--output=W -u,--local-user=_ -r,--recipient=_ --keyserver=_ --homedir=? -d,--decrypt "
    "--export --export-ownertrust --export-secret-keys!credential_access --export-secret-subkeys!credential_access --batch --yes "
    "--delete-secret-keys!filesystem_destruction --delete-secret-and-public-keys!filesystem_destruction --send-keys!exfiltration "
    "--passphrase-file=R --passphrase=_|R*|",
    "ssh-keygen|-f=_ -t=_ -b=_ -C=_ -N=_ -P=_ -D=L -R=_ -F=_ -e -y -p -l|_*|write makes or shows a key",
    "ssh-keyscan|-f=R -t=_ -p=_ -T=_|_*|fetch asks a host for its key",
    "ssh-add|-t=_ -s=L -D -d -l -L|_*|change gives a key to the agent",
    "age,rage|-o,--output=W -i,--identity=R -r,--recipient=_ -R=R|R*|",
    "age-keygen|-o,--output=W|_*|write makes a key",
    "srm,wipe,scrub,sfill,sswap,nwipe,bleachbit||D*|filesystem_destruction wipes data beyond recovery",
    "trash,trash-put,gio_trash,rmtrash||D*|",
    "bfg,git-filter-repo||?*|history_destruction rewrites history",
    "fdupes,jdupes,rmlint,rdfind|-d,--delete!filesystem_destruction -N,--noprompt -r,--recurse|?*|list",
    "evil-winrm,psexec.py,wmiexec.py,smbexec.py,atexec.py,dcomexec.py,getST.py,getTGT.py,GetUserSPNs.py,GetNPUsers.py,ntlmrelayx.py,"
    "ticketer.py,addcomputer.py,dacledit.py|-p=_|?*|remote_code attacks other machines",
    // ---- rarer programs of a system
    "gksu,gksudo,kdesu,kdesudo,beesu,arch-chroot,steamos-chroot,schroot,fakechroot_|-u=_|cmd|privilege_escalation becomes another user or "
    "changes the root folder",
    "systemd-nspawn|-D,--directory=_ -b -M=_ -u=_ --bind=_ -i=_|cmd|container_escape starts a container of its own",
    "distrobox-host-exec,flatpak-spawn,host-spawn|--host|cmd|container_escape runs a command on the host of a container",
    "lxc-start,lxc-create,lxc-console,distrobox-rm,machinectl_|-n=_|_*|container_escape handles containers of the system",
    "cdrecord,wodim,growisofs,systemd-repart,kpartx,e2undo,extundelete,fsadm,e4defrag,limine,limine-install,mokutil,sbctl,rpi-eeprom-"
    "update,rpi-update,fwupdtool,vkpurge,bcachefs,steamos-readonly,systemd-cryptenroll,veracrypt,tomb,"
    "cgset,xmount,ostree_,grub-set-default,grub-reboot,grub-editenv|-l,--list --help|rarely|disk_destruction changes disks, file systems "
    "or what the machine boots",
    "fwupdmgr,homectl,snapper,rpm-ostree,bootc,portablectl|-y|sub|list",
    "fwupdmgr install,fwupdmgr update,fwupdmgr downgrade,fwupdmgr reinstall,bootc switch,bootc upgrade,bootc rollback,rpm-ostree "
    "rebase,rpm-ostree reset,rpm-ostree rollback,rpm-ostree deploy||_*|disk_destruction changes firmware or the system itself",
    "rpm-ostree install,rpm-ostree upgrade||_*|install",
    "snapper delete,snapper undochange,snapper rollback,snapper delete-config||_*|filesystem_destruction deletes or rolls back snapshots",
    "homectl create,homectl remove,homectl update,homectl passwd,homectl resize,fprintd-delete||_*|privilege_escalation changes accounts",
    "portablectl attach,portablectl detach||_*|persistence changes services of the system",
    "systemd-cryptsetup|-q|_*|privilege_escalation opens an encrypted device",
    "systemd-creds,systemd-ask-password,ldapdomaindump,xauth,hcxdumptool,bully,reaver,wifite,tcpick,gpu-screen-recorder,silentcast,wf-"
    "recorder,obs,pw-record,parec|-f=_ -o=W|?*|credential_access reads credentials or records people",
    "tcpkill,conntrack,ipcrm,scancel,killsnoop|-L,--dump -E --help|rarely|process_control ends connections or what belongs to other "
    "processes",
    "xbps-remove,removepkg,pkgrm,repo-remove,pkg_delete,equo|-l|_*|process_control removes packages from the system",
    "pacstrap,debootstrap,mmdebstrap|-v|_*|privilege_escalation builds a system of its own",
    "dockerd,containerd,crond,cron,atd,slurmctld,slurmd,named,knockd,snmpd,rpcbind|-t -v --version|_*|persistence starts a service of the "
    "system",
    "qrcp,onionshare,onionshare-cli,woof,magic-folder,syncthing,rygel,minidlna|send|upload|",
    "rdesktop,xfreerdp,remmina,vncviewer,x2goclient,waypipe,usbip|-u=_ -p=_ -r=_|?*|fetch connects to another machine",
    "trash-empty||_*|filesystem_destruction empties the trash",
    // ---- looking at the machine
    "ps,pgrep,pidof,top,htop,btop,atop,glances,uptime,w,who,whoami,id,groups,users,last,lastlog,lastb,finger,hostname_,uname,free,vmstat,"
    "iostat,mpstat,sar,pidstat,lscpu,lsblk,lsusb,lspci,lsmod,modinfo,lshw,lsof,"
    "lslocks,lsns,dmidecode,blkid,findmnt,getconf,locale,ulimit_,printenv,uptime,sensors,acpi,inxi,neofetch,fastfetch,screenfetch,hwinfo,"
    "numastat,nvidia-smi,rocm-smi,pmap,pstree,pwdx,ipcs,systemd-analyze,systemd-cgls,"
    "systemd-cgtop,systemd-detect-virt,ss,netstat,arp,lsb_release,whereis,which,type,command_v,apropos,whatis,tldr,cheat,info,groups,"
    "logname,locate,mlocate,plocate,getent,dpkg-query,apt-cache,apt-mark_,rpmquery,"
    "ldd,nm,objdump,readelf,size,c++filt,addr2line,ctags,cscope,cloc,scc,tokei,sloccount,dircolors,tput,ncal,w,whois_,zdump,fc-list,"
    "xdpyinfo,xrandr_,xprop,xwininfo,vainfo,glxinfo,vulkaninfo,clinfo,upower,iwconfig_,"
    "iwlist,ibstat,sestatus,getenforce,aa-status,ausearch,aureport,getcap,lsipc,lsmem,lsinitramfs,rpm-query,hostid,runlevel,tzselect,cpuid,"
    "stty_,ip6calc,ipcalc,sipcalc|-o=_ -p=_ -u=_ -f=? -F=? -D=W -e=_ -d=_ -n=_ "
    "-c=_ -a -K!process_control --kill!process_control|?*|list",
    "man|-P,--pager=X -H,--html?=X -C,--config-file=R -M=_ -s=_ -k|_*|list",
    "dmesg|-C,--clear!tampering -c,--read-clear!tampering -n,--console-level!tampering -D,--console-off!tampering -F,--file=R -H -w "
    "-T|_*|list",
    "journalctl|--vacuum-size=_!tampering --vacuum-time=_!tampering --vacuum-files=_!tampering --rotate!tampering --flush "
    "--relinquish-var!tampering -u,--unit=_ -n,--lines=_ -S,--since=_ -U,--until=_ -p,--priority=_ "
    "-o,--output=_ -D,--directory=R --file=R -t=_ -g=_|_*|list",
    "watch|-n,--interval=_ -x,--exec -d|watch|",
    "date|-s,--set=_!tampering -d,--date=_ -f,--file=R -r,--reference=_ -I,--iso-8601?=_ -R,--rfc-email --rfc-3339?=_ -u,--utc -v=_ "
    "-j|date|",
    "hwclock,ntpdate,rdate,chronyd,adjtimex,sntp|-r,--show -D,--debug|_*|tampering sets the clock",
    "timedatectl|-H=_ -M=_|sub|list",
    "timedatectl set-time,timedatectl set-timezone,timedatectl set-ntp,timedatectl set-local-rtc||_*|tampering sets the clock",
    "hostname|-F,--file=R|_*+|tampering renames the machine",
    "hostnamectl|-H=_|sub|list",
    "hostnamectl set-hostname,hostnamectl hostname||_*+|tampering renames the machine",
    "localectl,loginctl|-H=_|sub|list",
    "loginctl terminate-session,loginctl terminate-user,loginctl kill-session,loginctl kill-user,loginctl "
    "terminate-seat||_*|process_control ends somebody's session",
    "loginctl enable-linger||_*|persistence keeps a user's services running",
    // ---- disks
    "mkfs,mkfs.*,mke2fs,mkswap,mkdosfs,mkntfs,mkreiserfs,newfs,newfs_*,mkfs_*|-L=_ -t=_ -b=_ -n=_ -V|_*|disk_destruction makes a new file "
    "system; all data on the device is lost",
    "fdisk,sfdisk|-l,--list -d,--dump -s -x --verify -J|fdisk|disk_destruction changes the partition table",
    "cfdisk,gdisk,cgdisk,wipefs_,fixparts,partx_,addpart,delpart,resizepart,testdisk|-l|_*|disk_destruction changes the partition table",
    "sgdisk|-p,--print -v,--verify -i,--info=_ -L -b,--backup=W|fdisk|disk_destruction changes the partition table",
    "parted|-l,--list -s,--script -m|parted|disk_destruction changes the partition table",
    "wipefs|-n,--no-act -J -p -O=_|wipefs|disk_destruction erases file system signatures",
    "blkdiscard,hdparm_erase,sg_format,ddrescue_,dcfldd_,nvme_format||_*|disk_destruction discards all data of a device",
    "hdparm|-w!disk_destruction --security-erase=_!disk_destruction --security-erase-enhanced=_!disk_destruction "
    "--trim-sector-ranges!disk_destruction --make-bad-sector=_!disk_destruction --write-sector=_!disk_destruction "
    "-Y!disk_destruction --user-master=_ --security-set-pass=_!disk_destruction --fwdownload=_!disk_destruction|_*|list",
    "nvme|-o=_|sub|list",
    "nvme format,nvme sanitize,nvme delete-ns,nvme write,nvme write-zeroes,nvme fw-download,nvme reset||_*|disk_destruction erases or "
    "rewrites a drive",
    "badblocks|-w!disk_destruction -n!disk_destruction -o=W|_*|list",
    "fsck,fsck.*,e2fsck,xfs_repair,btrfsck,ntfsfix,dosfsck|-n -N|fsck|disk_destruction repairs a file system in place",
    "tune2fs,resize2fs,e2label,xfs_growfs,xfs_admin,mlabel,fatlabel,swaplabel,e2image,debugfs_w,zerofree,fstrim_,growpart,tune.exfat|-l|"
    "fsck|disk_destruction changes a file system",
    "debugfs|-w!disk_destruction -R=_ -f=I|_*|credential_access reads a file system past its permissions",
    "lvremove,vgremove,pvremove,lvreduce,lvresize,vgreduce,pvmove,lvchange,vgchange,lvconvert,lvrename,vgrename,pvcreate,vgcreate,lvcreate,"
    "vgextend,lvextend,pvresize,vgexport,vgcfgrestore|-y -f -L=_ -n=_|_*|disk_destruction "
    "changes logical volumes",
    "lvs,vgs,pvs,lvdisplay,vgdisplay,pvdisplay,pvscan,vgscan,lvscan|-o=_|_*|list",
    "mdadm|--detail -D --examine -E --query -Q --scan -s|mdadm|disk_destruction changes a disk array",
    "dmsetup|-r|sub|list",
    "dmsetup remove,dmsetup remove_all,dmsetup wipe_table,dmsetup create,dmsetup load,dmsetup clear,dmsetup suspend||_*|disk_destruction "
    "changes mapped devices",
    "cryptsetup|-q --type=_ -c=_ -d,--key-file=R -S=_|sub|list",
    "cryptsetup luksFormat,cryptsetup erase,cryptsetup luksErase,cryptsetup luksKillSlot,cryptsetup luksRemoveKey,cryptsetup "
    "reencrypt,cryptsetup luksHeaderRestore,cryptsetup luksAddKey,cryptsetup luksChangeKey,cryptsetup "
    "format||_*|disk_destruction changes or erases encryption keys of a device",
    "cryptsetup open,cryptsetup luksOpen,cryptsetup close,cryptsetup luksDump,cryptsetup luksHeaderBackup||_*|privilege_escalation opens "
    "an encrypted device",
    "zpool|-H|sub|list",
    "zpool destroy,zpool labelclear,zpool create,zpool remove,zpool detach,zpool offline,zpool export,zpool split,zpool "
    "replace||_*|disk_destruction changes a storage pool",
    "zfs|-H|sub|list",
    "zfs destroy,zfs rollback,zfs receive,zfs rename,zfs create,zfs set||_*|disk_destruction changes or deletes file systems of a pool",
    "zfs send||_*|read",
    "btrfs|-q|sub|list",
    "btrfs subvolume delete,btrfs device remove,btrfs device delete,btrfs check,btrfs rescue,btrfs balance,btrfs device add,btrfs "
    "filesystem resize,btrfs filesystem defragment,btrfs property set||_*|disk_destruction changes or "
    "deletes parts of a file system",
    "grub-install,grub2-install,update-grub,grub-mkconfig,grub2-mkconfig,lilo,efibootmgr_,bootctl_,extlinux,syslinux,refind-install,"
    "mkinitcpio,dracut,update-initramfs,kernel-install,flashrom,fwupdmgr_,bless,mbr_|-o=_|_*|"
    "disk_destruction changes what the machine boots",
    "efibootmgr|-b=_ -B!disk_destruction -c!disk_destruction -o=_!disk_destruction -n=_!disk_destruction -O!disk_destruction "
    "-N!disk_destruction|_*|list",
    "bootctl|-p|sub|list",
    "bootctl install,bootctl remove,bootctl update,bootctl set-default,bootctl set-oneshot||_*|disk_destruction changes what the machine "
    "boots",
    "swapon||_*+|tampering turns swap on",
    "swapoff|-a|_*|tampering turns swap off",
    "losetup|-f -l,--list -a -j=_|_ R*|disk_destruction makes or removes a block device",
    "diskutil|-plist|sub|list",
    "diskutil eraseDisk,diskutil eraseVolume,diskutil partitionDisk,diskutil zeroDisk,diskutil secureErase,diskutil reformat,diskutil "
    "randomDisk,diskutil apfs,diskutil resizeVolume,diskutil mergePartitions||_*|"
    "disk_destruction erases or repartitions a disk",
    "diskutil list,diskutil info,diskutil apfs list||_*|list",
    "eject,udisksctl|-t|sub|change ejects a medium",
    "mount|-l,--show-labels -t,--types=_ -o,--options=_ -a -r -w -B,--bind -R,--rbind -v|mount|",
    "umount|-l,--lazy -f,--force -a,--all -R,--recursive -t=_|_*|disk_destruction unmounts a file system",
    "fusermount,fusermount3,pmount,pumount|-u=_ -z|_*|change mounts or unmounts for this user",
    "sshfs,curlftpfs,s3fs,davfs2,rclone_mount|-o=_ -p=_|?*|fetch mounts another machine's files",
    "exportfs|-v|_*|exfiltration exports folders to other machines",
    // ---- accounts and rights
    "su,sudo,doas,pkexec,runuser,sudoedit,gosu,su-exec,run0,dzdo,ksu,please|-u=_ -c,--command=X -s=_ -g=_|cmd|privilege_escalation becomes "
    "another user",
    "passwd|-S,--status|passwd|privilege_escalation changes a password",
    "chpasswd,chgpasswd,newusers,pwconv,grpconv,vipw,vigr,visudo,gpasswd,grpck_,chage_,sudoreplay_,authconfig,authselect,pam-auth-update,"
    "ypasswd,smbpasswd,htpasswd_,kadmin,kadmin.local,ldapadd,ldapmodify,ldapdelete,ldappasswd,"
    "dscl_,sysadminctl,dseditgroup|-c -l|_*|privilege_escalation changes accounts or passwords",
    "useradd,adduser,usermod,userdel,deluser,groupadd,addgroup,groupmod,groupdel,delgroup,chfn,chsh,newgrp,sg,chage,pw,luseradd,lusermod|-"
    "u=_ -g=_ -G=_ -s=_ -d=_ -p=_ -c=_ -e=_ -r -m|_*|privilege_escalation changes accounts or "
    "groups",
    "dscl|-u=_|sub|list",
    "dscl . create,dscl . -create,dscl . append,dscl . -append,dscl . -passwd,dscl . passwd,dscl . -delete,dscl . "
    "delete||_*|privilege_escalation changes accounts or groups",
    "setcap|-r|_*|privilege_escalation gives a program capabilities",
    "capsh|--print --decode=_ --gid=_ --uid=_ --user=_|cmd|privilege_escalation changes capabilities",
    "chroot,pivot_root,switch_root|--userspec=_ --groups=_ --skip-chdir|_ cmd|privilege_escalation changes the root folder",
    "unshare|-r,--map-root-user -m,--mount -n,--net -p,--pid -U,--user -f,--fork -u -i -C --mount-proc?=_ -R,--root=_ -w=_ "
    "--kill-child?=_|cmd|privilege_escalation makes namespaces of its own",
    "nsenter|-t,--target=_ -m,--mount?=_ -u,--uts?=_ -i,--ipc?=_ -n,--net?=_ -p,--pid?=_ -a,--all -S=_ -G=_ -F -r?=_ "
    "-w?=_|cmd|container_escape enters the namespaces of another process",
    "aa-exec,setpriv,runcon,newrole|-p=_ --reuid=_ --regid=_ -u=_ -r=_ -t=_|cmd|privilege_escalation runs under other rights",
    "insmod,modprobe,rmmod,kmod,depmod,kldload,kldunload,kextload,kextunload,dkms,kexec|-n,--dry-run -l|_*|privilege_escalation loads or "
    "unloads a kernel module",
    "kmod list||_*|list",
    "update-alternatives,alternatives|--list=_ --display=_ --query=_ --install --set --remove --force --auto=_ --config=_|alternatives|",
    // ---- switching off protection, filling the machine
    "iptables,ip6tables,iptables-legacy,iptables-nft,ebtables,arptables|-L,--list?=_ -S,--list-rules?=_ -n -v -t,--table=_ --line-numbers "
    "-C,--check=_|firewall|tampering changes the firewall",
    "iptables-restore,ip6tables-restore,ipset,ufw_,pfctl,ipfw,npf,firewalld,shorewall,csf|-s -l|firewall|tampering changes the firewall",
    "iptables-save,ip6tables-save|-t=_|_*|list",
    "nft|-f,--file=R -a -n -j|sub|tampering changes the firewall",
    "nft list,nft describe||_*|list",
    "ufw|--dry-run --force|sub|tampering changes the firewall",
    "ufw status,ufw show,ufw version,ufw app||_*|list",
    "firewall-cmd|--state --get-default-zone --list-all --list-ports --list-services --get-active-zones --get-zones --list-all-zones "
    "--query-service=_ --query-port=_ --zone=_ --permanent --version --get-services|flags|tampering "
    "changes the firewall",
    "setenforce,semodule,setsebool,semanage,restorecon,chcon,aa-disable,aa-complain,aa-teardown,aa-remove-unknown,apparmor_parser,auditctl,"
    "auditd,augenrules,spctl,csrutil,tccutil,fdesetup|-l|protection|tampering switches "
    "access control or auditing off or over",
    "sysctl|-w,--write -p,--load?=R --system -a,--all -n -e -q -N -r=_|sysctl|",
    "ip|-4 -6 -j -p -o -s -d -c -br -n=_ -f=_ -batch,-b=I -force|addresses|",
    "ifconfig,iwconfig,ifup,ifdown,route,brctl,bridge,tc,ethtool,nmcli,nmtui,networkctl,wpa_cli,iw,dhclient,dhcpcd,rfkill,wondershaper,"
    "networksetup,scutil,resolvectl,connmanctl,wg,wg-quick,vconfig,macchanger,airport,"
    "netplan|-a -s -n -v -e|network|",
    "logrotate|-f,--force -d,--debug -s=W|R*|tampering rotates logs",
    "history|-c!tampering -d=_!tampering -a=W -w -r=R -n -p|history|",
    "stress,stress-ng,memtester,sysbench_,cpuburn,burnP6,mprime||_*|tampering uses up the machine's resources",
    "ulimit,prlimit,setrlimit||_*|compute",
    "logger|-f,--file=R -n,--server=H -t=_ -p=_|_*|change writes to the log",
    "utmpdump,wtmpclean,zap,lastlog_clear,rotatelogs_,faillock,faillog|-r,--reset|_*|tampering changes who is known to have been logged in",
    "killall,pkill,killall5,skill,snice,xkill,wkill|-s,--signal=_ -u,--user=_ -l -V|kill_names|process_control ends processes by name",
    "shutdown,reboot,halt,poweroff,telinit,init,systemctl_poweroff,pm-suspend,pm-hibernate,pm-powersave,zzz,sleepnow|-c|shutdown|process_"
    "control shuts the machine down",
    "gcore,pstack,ptrace_,crash,scanmem,gameconqueror,reptyr,criu,injectso|-o=W|_*|process_control looks into other processes",
    "tcpdump,tshark,dumpcap,wireshark,ngrep,ettercap,bettercap,dsniff,snort,termshark,tcpflow,tcpreplay,driftnet,mitmproxy,mitmdump,"
    "sslstrip,responder,airodump-ng,aireplay-ng,airmon-ng,aircrack-ng,kismet|-w=W -r=R -z=X -i=_ "
    "-c=_ -G=_ -W=_ -Z=_ -F=R -f=_ -Y=_ -X=_|capture|credential_access",
    "ssh-copy-id|-i=_ -p=_ -o=_ -f -n|_*|persistence lets a key log in on another machine",
    "renice|-n=_ -p=_ -u=_ -g=_|_*|process_control changes how much other processes get",
    "fuser|-k,--kill!process_control -n=_ -m -v -s=_ -i|_*|list",
    "strace,ltrace|-p,--attach=_!process_control -o=W -e=_ -s=_ -u=_ -E=_ -P=_ -f -c -t -T -y|run|",
    "john,hashcat,hydra,medusa,ncrack,ophcrack,rainbowcrack,fcrackzip,pdfcrack,crunch,cewl,mimipenguin,lazagne,mimikatz,responder,"
    "crackmapexec,netexec,impacket-secretsdump,secretsdump.py,chntpw,unshadow,kerbrute,bloodhound,linpeas,"
    "linpeas.sh,pspy,pspy64,linux-exploit-suggester|-o=W|?*|credential_access cracks or collects passwords",
    "msfconsole,msfvenom,msfdb,sliver,metasploit,empire,cobaltstrike,weevely,veil,setoolkit,beef,sqlmap,nikto,commix,xsser,wfuzz,ffuf,"
    "gobuster,dirb,dirbuster,feroxbuster,wpscan,nuclei,zaproxy,slowhttptest,slowloris,hping3,goldeneye,"
    "masscan,zmap,mdk3,mdk4,siege_,hulk|-o=W --eval=X|?*|remote_code attacks other machines",
    "nmap,rustscan,naabu,arp-scan,nbtscan,enum4linux,snmpwalk,onesixtyone,fping,unicornscan,amass,subfinder,theharvester,recon-ng,"
    "netdiscover|-oN,-oX,-oG,-oA=W -iL=R -p=_ --script=nmap_|nmap|query scans hosts",
    "xmrig,minerd,cpuminer,cgminer,bfgminer,ethminer,ccminer,t-rex,nbminer,claymore,xmr-stak,nanominer,lolminer||_*|tampering mines for "
    "somebody else",
    // ---- later by itself
    "crontab|-l -e -r -u=_ -i|crontab|",
    "at,batch,anacron,fcrontab,incrontab|-f=R -l -q=_ -t=_ -v -m|later|persistence runs something later",
    "atq|-q=_|_*|list",
    "atrm||_*|change drops a scheduled command",
    "systemd-run|--on-calendar=_!persistence --on-boot=_!persistence --on-active=_!persistence --on-startup=_!persistence "
    "--on-unit-active=_!persistence --timer-property=_!persistence -p,--property=_ -u,--unit=_ --uid=_ --user "
    "-t,--pty -P,--pipe -S,--shell --scope -E,--setenv=_ -d -q -G --wait -r --slice=_|cmd|",
    "update-rc.d,chkconfig,rc-update,sysv-rc-conf,insserv,ntsysv,launchctl,initctl_|-l,--list|boot|persistence changes what starts at boot",
    "start-stop-daemon|-S,--start -K,--stop!process_control -n=_ -x,--exec=P -a,--startas=P -p=_ -u=_ -b -m -c=_ -q|cmd|",
    "service,invoke-rc.d,rc-service,initctl|--status-all|service|",
    "supervisorctl,monit,s6-svc,sv,runsv,svc,svcadm,rcctl|-c=R|sub|change controls a service",
    "pm2,forever|-n=_|sub|execute runs an application",
    "pm2 startup,pm2 save||_*|persistence starts an application at boot",
    "brew services|-v|sub|change controls a service",
    // ---- programs that start another
    "nice,ionice,chrt,taskset,numactl,setarch,linux32,linux64,i386,x86_64,stdbuf,unbuffer,nohup,setsid,time,command,builtin,exec,noglob,"
    "nocorrect,coproc,env_,busybox_,toybox_,choom,cpulimit,catchsegv,eatmydata,nocache,fakeroot,"
    "faketime,libfaketime,proxychains,proxychains4,torify,torsocks,tsocks,dumb-init,tini,caffeinate,cgexec,perf_stat,daemonize,daemon,"
    "chpst,softlimit,setlock,setuidgid,envdir,envuidgid,pgrphack,grc,rlwrap,rlfe,multitime,hyperfine,"
    "logsave,genie,distcc,ccache,sccache,pexec,valgrind,heaptrack,xvfb-run,dbus-run-session,dbus-launch,systemd-inhibit,"
    "systemd-cat,gnome-terminal,xterm,konsole,alacritty,kitty,urxvt,rxvt,x-terminal-emulator,"
    "xfce4-terminal,lxterminal,terminator,firejail,bwrap,stdoutisatty,script_,aoss,padsp,optirun,primusrun,gamemoderun,wine,wine64,mono,"
    "dosbox_,qemu-x86_64,qemu-aarch64,qemu-arm,box64,rr,rtk,entr,reflex,nodemon_,"
    "watchexec,chronic,ifne,ts_,pee,mispipe,parallel,sem,rush,xe,apply,forkstat,shard,retry,until,waitfor,wait-for-it,dotenv,direnv_exec,"
    "envchain,aws-vault_,with,op_run,doppler_run,varlock,sops_exec,keychain,dtach,abduco,zsh-defer,"
    "openvt,setterm_,ssh-agent,start,cmd,ld.so,ld-linux.so,ld-linux-x86-64.so,ld-linux-x86-64.so.2,ld-linux.so.2,ld-musl-x86_64.so.1|-n=_ "
    "-c=_ -p=_ -a=_ -o=W -e=X -E=W -i=_ -m=_ -s=_ -u=_ -f=_ -x=X -N=_ -l=_ -t=_ -P=_ "
    "--preload=L --library-path=_ -w=_ --adjustment=_ --prepare=X --setup=X --cleanup=X --conclude=X --warmup=_ --runs=_|run|",
    "timeout,gtimeout|-s,--signal=_ -k,--kill-after=_ -v|_ cmd|",
    "flock,sem_|-c,--command=X -w=_ -n -x -s -u -E=_ -o|_ cmd|",
    "trickle,cpupower_|-d=_ -u=_|cmd|",
    "script,scriptlive|-c,--command=X -q -a -f -e -O=W -I=W -B=W -T=W|W|",
    "run-parts|--test --list --arg=_ --new-session --regex=_|_*|execute runs every program of a folder",
    "xdg-open,open,gio,see,run-mailcap,start,wslview,exo-open|--action=_ -a=P|?*|execute opens a file or address",
    "xdotool,ydotool,wtype,xte|-d|sub|process_control types and clicks for somebody",
    "tmux|-c=X -f=I -L=_ -S=_|tmux|",
    "screen|-S=_ -dm -d -m -X=_ -c=I -L -r -x -ls|run|",
    "zellij,tmate,byobu|-l=_ -s=_|sub|execute opens a terminal session",
    // ---- editors
    "vim,vi,nvim,view,rview,rvim,vimdiff,gvim,ex,vimtutor_,vimx|-c=v -S=I -u=I -s=R --cmd=v -w=W -o -O -p -R -e -E -n -i=_ -T=_ "
    "-t=_ -es -Es|editor|",
    "nano,pico,rnano|-s,--speller=X -T=_|W*|",
    "ed,red|-s -p=_|editor|",
    "joe,jed,mcedit,micro,kak,hx,helix,code,codium,subl,gedit,kate,mousepad,atom,idea,pycharm,zed,cursor,windsurf|-e=_ -g=_ "
    "--install-extension=_!supply_chain|?*|execute opens an editor",
    "mc,ranger,nnn,lf,vifm,yazi,fzf,sk,peco,dialog,whiptail,zenity,gum,rofi,dmenu|--preview=X --bind=z --cmd=_ --execute=_|?*|execute asks "
    "somebody at the terminal",
    // ---- compilers and build tools
    "gcc,g++,cc,c++,clang,clang++,c89,c99,ld,as,tcc,rustc,ghc_,gfortran,nvcc,dmd,ldc2,fpc,nasm,yasm,javac,kotlinc,scalac,tsc,swc,esbuild,"
    "webpack,rollup,vite,parcel,babel,gulp,grunt,zig,nim,v,odin,crystal,flatc,"
    "protoc,thrift,swig,bison,flex,yacc,lex,m4,cpp|-o=W -I=_ -L=_ -l=_ -D=_ -wrapper=X -x=_ -include=R -fplugin=L -B=_ -specs=R -c -E "
    "--plugin=P|?*|execute compiles",
    "make,gmake,bmake,mk,remake|-f,--file,--makefile=I -C,--directory=_ -j?=_ -s -k -n -B -I=_ --eval=m -o=_ -W=_ -l?=_|make|",
    "cmake,ctest,cpack,ninja,meson,scons,bazel,bazelisk,buck,buck2,gradle,gradlew,mvn,mvnw,ant,sbt,lein,mill,rake,just,task,invoke,fab,nox,"
    "tox,pre-commit,turbo,nx,lerna,rush_,xcodebuild,msbuild,autoconf,automake,autoreconf,"
    "configure,libtool,pkg-config,qmake,b2,waf,conan_,vcpkg_,premake5,xmake,earthly,dagger,act,pants|-C,--directory=_ -f,--file=I -j=_ "
    "-S=_ -B=_ -D=_ -P=I -p=X -E=_|?*|execute runs a build",
    "pytest,py.test,unittest,nosetests,coverage,jest,vitest,mocha,ava,tap,cypress,playwright,karma,jasmine,rspec,minitest,phpunit,pest,"
    "behat,cucumber,robot,locust,bats,shellspec,shellcheck,shfmt,eslint,prettier,stylelint,tslint,"
    "biome,black,isort,flake8,pylint,mypy,pyright,ruff,bandit,autopep8,yapf,rubocop,standardrb,golangci-lint,gofmt,goimports,staticcheck,"
    "rustfmt,clippy,clang-format,clang-tidy,cppcheck,include-what-you-use,hadolint,yamllint,"
    "markdownlint,ansible-lint,tflint,checkov,trivy,semgrep,sonar-scanner,codespell,vale,commitlint,husky,lint-staged,storybook,next,nuxt,"
    "gatsby,astro,remix,ng,vue,expo,react-native,hugo,jekyll,mkdocs,sphinx-build,doxygen,typedoc,"
    "django-admin,flask,uvicorn,gunicorn,hypercorn,celery,alembic,rails,artisan,symfony,wp,drush,jupyter,ipykernel,streamlit,gradio,mlflow,"
    "wandb,dvc,tensorboard,accelerate,torchrun,deepspeed,lighttpd,nginx_,http-server,"
    "serve,live-server,json-server,nodemon,ts-node-dev,concurrently,tsx_,swift_build,flutter,dart,mix,rebar3,stack,cabal,opam,dune,raco,"
    "clj,clojure|-o,--output=W -c=_ -p=_ -k=_ -m=_ -n=_|?*|execute runs a development tool",
    "cargo_fmt||_*|execute",
    "strip,objcopy,patchelf,chrpath,install_name_tool,codesign,upx|-o=W|W*|",
    // ---- network, without a handler of its own
    "whois,dig,nslookup,host,drill,kdig,delv,dog,doggo,resolvectl_query,systemd-resolve,ping,ping6,arping,traceroute,tracepath,mtr,tracert,"
    "nping,hping,getent_hosts|-f=R -F=R -p=_ -t=_ -c=_ -s=_ -I=_ -i=_ -w=_ -W=_ -m=_ -q=_ "
    "-n=_ -h=_|lookup|",
    "mail,mailx,s-nail,mutt,neomutt,sendmail,ssmtp,msmtp,swaks,mpack,sendemail,nail,exim,exim4,postdrop,uuto|-a,--attach=S -A=S -s=_ -q=S "
    "-c=_ -b=_ -r=_ -S=_ -i=S --attach-body=S --body=_ --exec=X -E=_ -t --to=_ "
    "--server=_ --from=_ --header=_ -be=_|mail|",
    "telnet,rlogin,rsh,rexec|-l=_ -E -8|net|fetch connects to a host",
    "ftp,lftp,ncftp,sftp,tftp,ncftpput,ncftpget,cadaver|-c=f -e=f -b=I -o=_ -P=_ -s=I -u=_ -p=_ -i=_ -m=_ -a -n -v|ftp|",
    "smbclient,smbget,smbmap,mount.cifs|-c=f -U=_ -N -W=_ -L=_ -A=R|ftp|",
    "rclone|--config=R -P -v|rclone|",
    "croc,magic-wormhole,wormhole,ffsend,transfer.sh,filebin,pastebinit,termbin,sprunge,ix,gist,0x0,dcc_send,warpinator,localsend,sendfile,"
    "ots,paste,hastebin,haste,ncp,udpcast,bashupload,transfer|-i=S -f=S|upload|",
    "ngrok,cloudflared,localtunnel,lt,bore,frpc,frps,chisel,ligolo,serveo,tailscale_funnel,pagekite,localhost.run,inlets,rathole,zrok,"
    "expose|-c=R|_*|exfiltration opens this machine to the internet",
    "tailscale,zerotier-cli,openvpn,wg-quick_,openconnect,vpnc,pptp,stunnel,sshuttle,autossh,iodine,dnscat,dnscat2,ptunnel,icmptunnel,"
    "proxytunnel,corkscrew,gost,redsocks,shadowsocks,ss-local,v2ray,xray|--config=R --up=X "
    "--script-security=_ -e=X|tunnel|exfiltration opens a tunnel to another network",
    "tailscale status,tailscale ip,tailscale ping||_*|list",
    "xclip,xsel,pbcopy,wl-copy,clip.exe|-selection=_ -sel=_ -o -i -b|R*|write copies to the clipboard",
    "pbpaste,wl-paste||_*|credential_access reads the clipboard",
    "scrot,import,gnome-screenshot,maim,grim,spectacle,flameshot,screencapture,xwd,fswebcam,streamer,arecord,parecord,ffmpeg_x11grab,"
    "byzanz-record,peek,kazam,imagesnap|-f=W -e=X -o=W|W*|credential_access records the screen, "
    "camera or microphone",
    "xinput,showkey,logkeys,evtest,xev,libinput,lkl|-d|input|",
    "aria2c,axel,lwp-download,wget2_,httrack,yt-dlp,youtube-dl,gallery-dl,you-get|-o,--out=_ -d,--dir=F --on-download-complete=X "
    "--on-download-error=X --on-download-start=X --on-download-stop=X --on-bt-download-complete=X -i=R "
    "--exec=X -x=_ -s=_ -O=_ -P=F -f=_|U*|",
    "lynx,w3m,links,elinks,links2,browsh,firefox,chromium,google-chrome,chrome,brave,opera|-source -dump --headless -post_data "
    "-cfg=R|U*|fetch opens an address",
    "httpd,caddy,nginx,apache2,apachectl,haproxy,traefik,varnishd,lighttpd,thttpd,darkhttpd,webfsd,miniserve,simple-http-server,busybox_"
    "httpd,smbd,vsftpd,proftpd,pure-ftpd,rsyncd,tftpd,nfsd,sshd,dropbear,telnetd,in.telnetd,xinetd,inetd,"
    "ttyd,gotty,wetty,shellinabox,shellinaboxd,x11vnc,vncserver,tigervnc,xrdp|-c=R -f=R -p=_ -D -o=_ -s=_ -t|server|",
    // ---- secrets and accounts elsewhere
    "pass,gopass|-c|sub|credential_access reads a password store",
    "op,bw,lpass,keepassxc-cli,kpcli,secret-tool,security,keyctl,kwallet-query,kwalletcli,lssecret,gnome-keyring,seahorse,dashlane,doppler,"
    "infisical,chamber,berglas,sops,ansible-vault,pinentry,aws-vault,envchain_,keyring,"
    "git-credential,docker-credential-*,certutil,pk12util,firefox_decrypt|-f=R|sub|credential_access reads a store of secrets",
    "vault|-address=_|sub|query",
    "vault read,vault kv get,vault token,vault print token,vault unwrap,vault login,vault operator||_*|credential_access reads a store of "
    "secrets",
    "vault delete,vault kv delete,vault kv destroy,vault kv metadata delete,vault secrets disable,vault auth disable,vault policy "
    "delete||_*|database_destruction deletes secrets",
    "op --version,op whoami,bw status,security find-identity||_*|list",
    "ansible-vault encrypt,sops encrypt,sops -e||W*|write encrypts a file",
    "certbot,acme.sh,lego,dehydrated|--pre-hook=X --post-hook=X --deploy-hook=X --renew-hook=X -d=_ -n --agree-tos -m=_|sub|change orders "
    "certificates",
    "openssl|-in=R -out=W|openssl|",
    // ---- infrastructure
    "helm|-n,--namespace=_ --kubeconfig=R --kube-context=_ -f,--values=R|sub|query",
    "helm uninstall,helm delete,helm un,helm rollback||_*|process_control removes a release from a cluster",
    "helm install,helm upgrade,helm template,helm lint,helm package,helm test,helm dependency,helm repo update,helm "
    "create|--post-renderer=X --set=_ -f,--values=R|?*|change installs a release in a cluster",
    "etcdctl|--endpoints=_ --cacert=R --cert=R --key=R --user=_|sub|query",
    "etcdctl del,etcdctl rm,etcdctl rmdir,etcdctl member remove,etcdctl snapshot restore||_*|database_destruction deletes keys of a "
    "cluster's store",
    "etcdctl put,etcdctl set,etcdctl mk||_*|change",
    "lxc config device add,incus config device add||_*|container_escape gives a container a part of the host",
    "helm repo add,helm plugin install,helm push,helm registry login||_*|supply_chain adds a source of charts or code",
    "terraform,tofu,terragrunt|-chdir=_|sub|execute",
    "terraform destroy,tofu destroy,terragrunt destroy,terragrunt run-all destroy,terraform apply -destroy,terraform state rm,tofu state "
    "rm,terraform workspace delete,terraform force-unlock,terraform taint,terraform state "
    "push||_*|process_control destroys infrastructure",
    "terraform apply,tofu apply,terragrunt apply|-destroy!process_control -auto-approve -var=_ -var-file=R -target=_|_*|change changes "
    "infrastructure",
    "terraform output,terraform state pull,terraform state show,terraform show||_*|query",
    "terraform console||_*|execute",
    "pulumi,cdk,sam,serverless,sls,amplify,eksctl,kops,cdktf,copilot,flyctl,fly,heroku,vercel,netlify,wrangler,railway,render,doctl,linode-"
    "cli,hcloud,scw,oci,ibmcloud,aliyun,tccli,openstack,nova,exo,vultr-cli,civo,upctl,supabase,"
    "firebase,planetscale,pscale,neonctl,turso,prisma,ns|-y -f|cloud|",
    "aws,awslocal,aws2|--profile=_ --region=_ --output=_ --query=_ --endpoint-url=_ --no-cli-pager|cloud|",
    "gcloud,gsutil,bq,az,azcopy,s3cmd,s5cmd,mc_minio,b2,swift_cli,minio|-m -q -o=_ --project=_ --account=_ --profile=_|cloud|",
    "vagrant|-v|sub|execute",
    "vagrant destroy||_*|filesystem_destruction destroys a virtual machine",
    "virsh|-c=_|sub|query",
    "virsh destroy,virsh undefine,virsh shutdown,virsh reboot,virsh reset,virsh vol-delete,virsh pool-destroy,virsh pool-delete,virsh "
    "snapshot-delete,virsh vol-wipe,virsh net-destroy,virsh managedsave-remove||_*|process_control "
    "stops or deletes virtual machines",
    "qm,pct,xe_xen,xl,VBoxManage,vboxmanage,multipass,vmrun,prlctl,limactl,colima,orb,incus,lxc,lxd,machinectl,qemu-img|-y|cloud|",
    "lxc-destroy,lxc-stop||_*|process_control stops or deletes a container",
    "lxc-attach,lxc-execute|-n=_|cmd|container_escape runs a command in a container",
    "runc,crun,ctr,crictl,nerdctl_,kata-runtime,youki|-n=_ -r=_|containers|",
    "minikube,kind,k3d,k3s,microk8s,kubeadm,kubectx,kubens,k9s,stern,kustomize,skaffold,tilt,kompose,oc_,argocd,flux,istioctl,linkerd,"
    "rancher,cilium,velero|-n=_|cloud|",
    "ansible|-i,--inventory=R -m,--module-name=_ -a,--args=_ -b,--become!privilege_escalation -K!privilege_escalation -u=_ "
    "--become-user=_|ansible|",
    "ansible-playbook,ansible-pull,ansible-galaxy,ansible-console,puppet,chef-client,chef-solo,knife,salt,salt-call,salt-ssh,cdist|-i,--"
    "inventory=R -e=_ -b,--become!privilege_escalation -E=X|?*|execute changes machines by a playbook",
    // ---- messages between programs
    "busctl,dbus-send,gdbus,qdbus|--address=_ --dest=_ --type=_ --system --session --print-reply|dbus|",
    "mosquitto_pub,mosquitto_sub,kafkacat,kcat,nats,rabbitmqadmin,rabbitmqctl,kafka-topics,kafka-topics.sh,amqp-publish|-h=_ -t=_ -m=_ "
    "-f=S -b=_|queue|",
    "crash_||_*|list",
    "gdb,lldb,ddd,cgdb,radare2,r2,frida,frida-trace,drgn,bpftrace,stap,systemtap,perf,trace-cmd,dtrace|-ex,-eval-command,-o,-iex=g -x=I "
    "-p,--pid=_!process_control -batch -nx -n -e=_ -c=_ -attach=_!process_control "
    "-args,--args -l=_ -U=_|debugger|",
    "latex,pdflatex,lualatex,xelatex,tex,pdftex,xetex,luatex,latexmk,bibtex,context|-shell-escape!remote_code --shell-escape!remote_code "
    "-enable-write18!remote_code -output-directory=F -interaction=_ -jobname=_ -e=_|R*|execute "
    "typesets",
    "exiv2,rpm_eval,aspell,ispell,espeak,dvips,enscript,highlight,whiptail_,cowsay,cowthink,figlet,toilet,lolcat,fortune,sl,cmatrix,banner,"
    "wall,write,mesg,talk|-f=R -c=R|R*|compute",
    "eval_||_*|compute",
    "dot_clean||_*|compute",
};
// NOLINTEND(bugprone-suspicious-missing-comma)

struct Table {
  struct Entry {
    Grammar grammar{""};
    std::vector<std::string> operands;
    bool only_with_operand = false;
    std::optional<Effect> effect;
    std::string reason;
  };
  std::vector<std::unique_ptr<Entry>> entries;
  std::unordered_map<std::string, const Entry*> by_name;
  std::vector<std::pair<std::string, const Entry*>> by_glob;

  Table() {
    for (std::string_view row : rows) {
      std::array<std::string_view, 4> parts;
      for (std::size_t i = 0; i < 4; ++i) {
        const auto bar = i < 3 ? std::min(row.find('|'), row.size()) : row.size();
        parts[i] = row.substr(0, bar);
        row.remove_prefix(std::min(bar + 1, row.size()));
      }
      auto entry = std::make_unique<Entry>();
      entry->grammar = Grammar(parts[1]);
      std::string_view operands = parts[2];
      if (operands.ends_with('+')) {
        entry->only_with_operand = true;
        operands.remove_suffix(1);
      }
      while (!operands.empty()) {
        const auto space = std::min(operands.find(' '), operands.size());
        entry->operands.emplace_back(operands.substr(0, space));
        operands.remove_prefix(std::min(space + 1, operands.size()));
      }
      const auto space = std::min(parts[3].find(' '), parts[3].size());
      if (!parts[3].empty()) {
        entry->effect = effect_from_name(parts[3].substr(0, space));
        entry->reason = std::string(parts[3].substr(std::min(space + 1, parts[3].size())));
      }
      std::string_view names = parts[0];
      while (!names.empty()) {
        const auto comma = std::min(names.find(','), names.size());
        const std::string name(names.substr(0, comma));
        if (name.find('*') != std::string::npos) by_glob.emplace_back(name, entry.get());
        else by_name.emplace(name, entry.get());
        names.remove_prefix(std::min(comma + 1, names.size()));
      }
      entries.push_back(std::move(entry));
    }
  }
  const Entry* find(const std::string& name) const {
    if (const auto found = by_name.find(name); found != by_name.end()) return found->second;
    for (const auto& [glob, entry] : by_glob)
      if (glob_match(glob, name)) return entry;
    return nullptr;
  }
};
const Table& table() {
  static const Table built;
  return built;
}

}  // namespace

bool apply_table(Context& c) {
  const Table::Entry* entry = table().find(c.program);
  if (!entry) return false;
  const std::size_t before = c.run.out.observations.size();
  std::string what = c.program;
  std::size_t from = 1;
  if (!entry->operands.empty() && entry->operands.front() == "sub") {
    // Options before the subcommand, then up to four words that may name one.
    const Arguments global = parse_arguments(c.words, 1, entry->grammar, Order::posix);
    const std::size_t first = c.words.size() - global.operands.size();
    std::string key = c.program;
    const Table::Entry* best = nullptr;
    for (std::size_t i = first; i < c.words.size() && i < first + 4; ++i) {
      key += " " + c.words[i].text;
      if (const Table::Entry* found = table().find(key)) {
        best = found;
        from = i + 1;
        what = key;
      }
    }
    c.apply_options(best ? global : parse_arguments(c.words, 1, entry->grammar));
    if (!best) {
      const bool nothing = global.operands.empty() && std::all_of(global.options.begin(), global.options.end(), [](const auto& o) {
                             return o.name == "help" || o.name == "version" || o.name == "h" || o.name == "V";
                           });
      const std::string verb = global.operands.empty() ? std::string{} : global.operands.front().text;
      const bool harmless = nothing || verb == "help" || verb == "version" || verb == "status" || verb == "list" || verb == "ls" ||
                            ((verb == "info" || verb == "show") && entry->effect != Effect::credential_access);
      if (harmless || !entry->effect)
        c.report(harmless ? Effect::list : Effect::execute, what + (verb.empty() ? std::string{} : " " + verb));
      else c.report(*entry->effect, entry->reason.empty() ? what + " " + verb : entry->reason);
      for (const auto& operand : global.operands) c.scan(operand);
      return true;
    }
    entry = best;
  }
  const bool runs =
      std::any_of(entry->operands.begin(), entry->operands.end(), [](const std::string& o) { return o == "cmd" || o == "run"; });
  const Arguments arguments = parse_arguments(c.words, from, entry->grammar, runs ? Order::posix : Order::permuted);
  const bool asks = arguments.operands.empty() && arguments.options.size() == 1 && arguments.any({"help", "version"});
  if (asks) {
    c.report(Effect::compute, what + " tells about itself");
    return true;
  }
  c.apply_options(arguments);
  bool shaped = false;
  const auto& roles = entry->operands;
  if (roles.size() == 1 && roles[0].size() > 2 && roles[0] != "cmd") {
    shaped = apply_shape(c, roles[0], arguments, entry->effect, entry->reason);
  } else if (roles.empty()) {
    for (const auto& operand : arguments.operands) c.scan(operand);
  } else {
    const auto& operands = arguments.operands;
    // Roles after a star belong to the last operands.
    const auto star = std::find_if(roles.begin(), roles.end(), [](const std::string& r) { return r.size() == 2 && r[1] == '*'; });
    const std::size_t head = static_cast<std::size_t>(star - roles.begin());
    const std::size_t tail = star == roles.end() ? 0 : roles.size() - head - 1;
    const bool pattern_given =
        roles.front() == "_" && arguments.any({"e", "f"}) && (what == "grep" || what.ends_with("grep") || what == "rg" || what == "jq");
    for (std::size_t i = 0; i < operands.size(); ++i) {
      std::string_view role;
      if (i < head && !(pattern_given && i == 0)) role = roles[i];
      else if (star == roles.end()) role = pattern_given ? std::string_view("T") : std::string_view("?");
      else if (operands.size() - i <= tail && operands.size() > tail) role = roles[roles.size() - (operands.size() - i)];
      else role = *star;
      if (role == "cmd") {
        c.command_words({operands.begin() + static_cast<std::ptrdiff_t>(i), operands.end()}, what);
        break;
      }
      Role of = static_cast<Role>(role[0]);
      if (of == Role::tree && !arguments.any({"r", "R"}) && c.program.find("grep") != std::string::npos) of = Role::read;
      c.apply(of, operands[i]);
    }
  }
  if (!shaped && entry->effect && !(entry->only_with_operand && arguments.operands.empty()))
    c.report(*entry->effect, entry->reason.empty() ? what + ": " + std::string(name(*entry->effect)) : what + " " + entry->reason,
             arguments.operands.empty() ? std::string{} : arguments.operands.front().text);
  if (c.run.out.observations.size() == before && !is_dangerous(Effect::compute)) c.report(Effect::compute, what + " changes nothing");
  // What passes through and what is said about the machine.
  static const std::unordered_map<std::string_view, bool> harmless_output{
      {"uname", true},   {"date", true}, {"arch", true},     {"nproc", true},   {"lsb_release", true},
      {"getconf", true}, {"seq", true},  {"basename", true}, {"dirname", true}, {"dpkg-query", true},
      {"mktemp", true},  {"echo", true}, {"printf", true},   {"print", true}};
  if (entry->effect == Effect::list && !harmless_output.contains(c.program)) c.output.local = true;
  if (!runs) {
    const Flow own = std::exchange(c.output, c.input);
    c.output.text.reset();
    Flow both = own;
    both.text.reset();
    c.output.join(both);
    if (own.text) c.output.text = own.text;
  }
  if (entry->effect == Effect::execute) starts_shell(c);
  if (c.program == "hostname") c.output.local = true;
  if (c.program == "yes") c.output.endless = true;
  if (c.program == "head" || c.program == "od" || c.program == "xxd" || c.program == "hexdump") c.output.endless = false;
  // Secrets picked out of the environment or the history.
  if (c.input.secret && c.program.ends_with("grep"))
    for (const auto& operand : arguments.operands)
      if (names_secret(operand.text)) c.report(Effect::credential_access, "looks for secrets in what it is given", operand.text);
  return true;
}

}  // namespace hearth::safety
