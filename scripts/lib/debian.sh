# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What scripts/setup gets from a Debian archive: packages for this machine,
# the QEMU source of another release, a newer Meson.
#
# The latter two come through a private apt configuration: own sources, lists
# and cache under $CACHE/apt.  The machine's is only read, for the address of
# its mirror.  Sourced after common.sh; LOG names the log file.

# releases with a QEMU source of the series, newest pocket of each included
suites_of_series() {
    case $1 in
    10.0) echo trixie trixie-security ;;
    *) echo forky sid ;;
    esac
}

# os_release NAME: a field of os-release(5); OS_RELEASE is for tests
os_release() {
    (
        # shellcheck disable=SC1090
        . "${OS_RELEASE:-/etc/os-release}" 2>/dev/null || true
        eval "printf '%s' \"\${$1:-}\""
    )
}

# know_distribution: sets CODENAME, or says what can be done
know_distribution() {
    CODENAME=$(os_release VERSION_CODENAME)
    case $(os_release ID):$CODENAME in
    debian:bookworm|debian:trixie) return ;;
    esac
    local name
    name=$(os_release PRETTY_NAME)
    die "${name:-this distribution} is not known here, only Debian 12 and 13:" \
        "install what scripts/lib/packages lists by your own means, then run" \
        "scripts/setup --no-packages --qemu-src DIR"
}

wanted_packages() {
    sed -e 's/#.*//' -e '/^ *$/d' "$TOP/scripts/lib/packages"
}

missing_packages() {
    local -a want
    mapfile -t want < <(wanted_packages)
    # shellcheck disable=SC2016
    comm -23 <(printf '%s\n' "${want[@]}" | sort -u) \
        <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${want[@]}" \
            2>/dev/null | sed -n 's/^installed //p' | sort -u)
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@" 9>&-
    else
        sudo "$@"
    fi
}

apt_root() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=600 -o APT::Color=0 -qy "$@"
}

install_packages() {
    local -a missing
    mapfile -t missing < <(missing_packages)
    if [ "${#missing[@]}" -eq 0 ]; then
        done_line packages "all $(wanted_packages | wc -l) are there"
        return
    fi
    know_distribution
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        die "not root, and no sudo; as root: apt-get install ${missing[*]}"
    fi
    if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
        say "${#missing[@]} packages are to be installed; sudo may ask:"
        sudo -v || die "sudo refused; as root: apt-get install ${missing[*]}"
    fi
    # a source of the user's own that does not answer need not matter
    run "package lists" apt_root update -o APT::Update::Error-Mode=any ||
        say "  not all package lists could be fetched; trying what is there"
    run "${#missing[@]} packages" \
        apt_root install --no-install-recommends "${missing[@]}" ||
        die "packages could not be installed; is there a network? Log: $LOG"
}

# The private apt and Meson are one for all QEMU series.
lock_fetching() {
    exec 8>"$CACHE/lock"
    flock 8
}

unlock_fetching() {
    exec 8>&-
}

# private_apt TOOL ARGS...: apt-get or apt-cache on our own lists
private_apt() {
    local tool=$1
    local -a sandbox=()
    shift
    if [ "$(id -u)" -eq 0 ]; then
        # the cache is below root's home, where the user _apt cannot go
        sandbox=(-o APT::Sandbox::User=root)
    fi
    "$tool" -o Dir::Etc::SourceList=/dev/null \
        -o Dir::Etc::SourceParts="$CACHE/apt/sources" \
        -o Dir::State::Lists="$CACHE/apt/lists" \
        -o Dir::Cache="$CACHE/apt" "${sandbox[@]}" "$@"
}

# mirror_of SUITE: where the machine itself gets that suite from
mirror_of() {
    # shellcheck disable=SC2016
    apt-get indextargets 'Created-By: Packages' \
        --format '$(COMPONENT) $(REPO_URI) $(RELEASE) $(CODENAME)' \
        2>/dev/null |
        awk -v suite="$1" \
            '$1 == "main" && $2 !~ /^cdrom:/ &&
             ($3 == suite || $4 == suite) {
                 print $2; exit
             }'
}

# add_source NAME TYPE SUITE MIRROR: one entry of the private configuration
add_source() {
    local ring=/usr/share/keyrings/debian-archive-keyring.gpg
    {
        printf 'Types: %s\nURIs: %s\nSuites: %s\nComponents: main\n' \
            "$2" "$4" "$3"
        if [ -e "$ring" ]; then
            printf 'Signed-By: %s\n' "$ring"
        fi
    } >"$CACHE/apt/sources/$1.sources"
}

# private_update SUITE...: fetch source indices (deb-src), or, for a suite
# with -backports, its binary packages
private_update() {
    local suite mirror security
    mirror=$(mirror_of "$CODENAME")
    security=$(mirror_of "$CODENAME-security")
    [ -n "$mirror" ] ||
        die "apt on this machine names no mirror for $CODENAME"
    rm -rf "$CACHE/apt/sources"
    mkdir -p "$CACHE/apt/sources" "$CACHE/apt/lists/partial" \
        "$CACHE/apt/archives/partial"
    for suite; do
        case $suite in
        *-security)
            [ -z "$security" ] ||
                add_source "$suite" deb-src "$suite" "$security"
            ;;
        *-backports) add_source "$suite" deb "$suite" "$mirror" ;;
        *) add_source "$suite" deb-src "$suite" "$mirror" ;;
        esac
    done
    run "source lists" private_apt apt-get -q \
        -o APT::Update::Error-Mode=any update ||
        die "no lists of $* from $mirror; is there a network? Log: $LOG"
}

# fetch_qemu SERIES FOLDER: unpack the newest source of the series that the
# archive really has; an index may still list one that is gone
fetch_qemu() {
    local series=$1 folder=$2 work version got=
    local -a versions
    # shellcheck disable=SC2046
    private_update $(suites_of_series "$series")
    mapfile -t versions < <(
        private_apt apt-cache showsrc --only-source qemu 2>>"$LOG" |
            sed -n "s/^Version: \(\([0-9]*:\)\?${series/./\\.}\..*\)/\1/p" |
            sort -Vru)
    [ "${#versions[@]}" -gt 0 ] ||
        die "the archive has no QEMU $series any more; use --qemu-src DIR"
    work=$folder.new
    rm -rf "$work"
    mkdir -p "$work"
    for version in "${versions[@]}"; do
        if run "QEMU ${version#*:}" in_folder "$work" private_apt apt-get \
            -q source --download-only "qemu=$version"; then
            got=$version
            break
        fi
    done
    [ -n "$got" ] ||
        die "no source of QEMU $series could be fetched; log: $LOG"
    run "unpack" in_folder "$work" sh -c \
        'exec dpkg-source -x ./*.dsc src' ||
        die "the QEMU source could not be unpacked; log: $LOG"
    rm -rf "$folder"
    mv "$work/src" "$folder"
    rm -rf "$work"
}

in_folder() {
    cd "$1" && shift && "$@"
}

# fetch_meson FOLDER: a newer Meson than the machine's, from its backports
fetch_meson() {
    local folder=$1
    know_distribution
    private_update "$CODENAME-backports"
    rm -rf "$folder.new"
    mkdir -p "$folder.new"
    run "Meson" in_folder "$folder.new" private_apt apt-get -q download meson ||
        die "no newer Meson could be fetched; log: $LOG"
    in_folder "$folder.new" sh -c 'dpkg-deb -x ./*.deb . && rm ./*.deb'
    rm -rf "$folder"
    mv "$folder.new" "$folder"
}
