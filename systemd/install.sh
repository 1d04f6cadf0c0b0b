#!/bin/sh
# make install, make uninstall: edgeproxy as a service of this machine (systemd, Debian or alike).
#
# PREFIX   where the program lives, a virtual environment of its own; /opt/edgeproxy
# DESTDIR  a folder that stands for / (for packages): files only, no user, no first configuration
# PYTHON   the Python to make the environment with
#
# Installing again is an upgrade. What was changed in /etc is kept.
set -eu
umask 022

source=$(cd "$(dirname "$0")/.." && pwd)
prefix=${PREFIX:-/opt/edgeproxy}
dest=${DESTDIR:-}
case $dest in
'') ;;
*[!A-Za-z0-9/._+:@~,=\ -]*)
    echo "edgeproxy: DESTDIR is a path of letters, digits, spaces and /._+:@~,=-" >&2
    exit 1
    ;;
*)
    # In its one form: a whole path, without a slash at its end.
    mkdir -p "$dest"
    dest=$(cd "$dest" && pwd)
    [ "$dest" != / ] || dest=
    ;;
esac
venv=$dest$prefix
mark=$venv/share/edgeproxy # also: what we put into /etc, as we left it
local=$dest/usr/local
etc=$dest/etc
units='edgeproxy.service edgeproxy.socket edgeproxy-http.socket'

fail() {
    echo "edgeproxy: $1" >&2
    exit 1
}

# put MODE FILE TARGET: with the prefix in place of its default
put() {
    mkdir -p "${3%/*}"
    sed "s|/opt/edgeproxy|$prefix|g" "$2" >"$3.new"
    chmod "$1" "$3.new"
    mv -f "$3.new" "$3"
}

# A file in /etc that may be changed, or removed, there: replaced only while it is as we left it.
put_unless_changed() {
    ours=$venv/share/edgeproxy/${3#"$dest"/}
    if [ -e "$ours" ] && ! cmp -s "$ours" "$3"; then
        echo "kept ${3#"$dest"}, which was changed here; the new one is ${ours#"$dest"}"
    elif [ ! -e "$ours" ] && [ -e "$3" ]; then
        echo "kept ${3#"$dest"}, which was here before; ours is ${ours#"$dest"}"
    else
        put "$1" "$2" "$3"
    fi
    put "$1" "$2" "$ours"
}

take_unless_changed() {
    if [ ! -e "$1" ]; then
        return
    elif cmp -s "$venv/share/edgeproxy/${1#"$dest"/}" "$1"; then
        rm -f "$1"
    else
        echo "kept ${1#"$dest"}, which was changed here"
    fi
}

program() {
    # Marked as ours from the first moment on: what is half made can be taken away, or made anew.
    mkdir -p "$mark"
    "$venv/bin/python" -c '' 2>/dev/null || {
        find "$venv" -mindepth 1 -maxdepth 1 ! -name share -exec rm -rf {} +
        "${PYTHON:-python3}" -m venv "$venv"
    } || fail "no virtual environment could be made; on Debian: apt-get install python3-venv"
    # From a copy, so that building leaves nothing in the clone.
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    for each in edgeproxy twisted setup.cfg pyproject.toml README.md LICENSE; do
        cp -R "$source/$each" "$copy/"
    done
    find "$copy" -name __pycache__ -prune -exec rm -rf {} +
    rm -f "$copy/twisted/plugins/dropin.cache"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
        --upgrade "$copy"
    # The cache of plugins; the service itself cannot write it.
    "$venv/bin/python" -c 'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))'
    if [ -n "$dest" ]; then
        # The second line is that of a path too long for `#!`.
        find "$venv/bin" -type f -exec sed -i "1,2s|$venv/bin/|$prefix/bin/|" {} +
        find "$venv/bin" -name 'activate*' -exec sed -i "s|$venv|$prefix|g" {} +
        sed -i "s|$venv|$prefix|g" "$venv/pyvenv.cfg"
    fi
    mkdir -p "$local/bin"
    ln -sfn "$prefix/bin/edgeproxy" "$local/bin/edgeproxy"
}

completion() {
    mkdir -p "${2%/*}"
    "$venv/bin/python" -c 'from edgeproxy.cli import main; main()' completion "$1" >"$2"
}

system_files() {
    for each in $units; do
        put 644 "$source/systemd/$each" "$local/lib/systemd/system/$each"
    done
    put 644 "$source/systemd/sysusers.conf" "$local/lib/sysusers.d/edgeproxy.conf"
    put 644 "$source/systemd/tmpfiles.conf" "$local/lib/tmpfiles.d/edgeproxy.conf"
    put_unless_changed 644 "$source/systemd/logrotate.conf" "$etc/logrotate.d/edgeproxy"
    put_unless_changed 755 "$source/systemd/certbot-deploy-hook" \
        "$etc/letsencrypt/renewal-hooks/deploy/edgeproxy"
    completion bash "$local/share/bash-completion/completions/edgeproxy"
    completion zsh "$local/share/zsh/site-functions/_edgeproxy"
    completion fish "$local/share/fish/vendor_completions.d/edgeproxy.fish"
}

# The user, the folders, and what a first start needs; all of it only where it is not there.
first_configuration() {
    systemd-sysusers "$local/lib/sysusers.d/edgeproxy.conf"
    systemd-tmpfiles --create "$local/lib/tmpfiles.d/edgeproxy.conf"
    if [ ! -e /etc/edgeproxy/edgeproxy.yaml ]; then
        (umask 027 && "$prefix/bin/edgeproxy" init --system /etc/edgeproxy)
        for each in edgeproxy.yaml keys.jsonl certs/localhost.pem certs/localhost-key.pem; do
            [ ! -f "/etc/edgeproxy/$each" ] || {
                chown root:edgeproxy "/etc/edgeproxy/$each"
                chmod 640 "/etc/edgeproxy/$each"
            }
        done
    fi
}

booted() {
    [ -z "$dest" ] && [ -d /run/systemd/system ]
}

install() {
    [ -n "$dest" ] || command -v systemd-sysusers >/dev/null || fail "this needs systemd"
    program
    system_files
    if [ -n "$dest" ]; then
        return
    fi
    first_configuration
    if booted; then
        systemctl daemon-reload
        if systemctl --quiet is-active edgeproxy.service; then
            echo "upgraded; the gateway that runs is the one from before: systemctl restart edgeproxy"
        fi
    fi
}

uninstall() {
    if booted; then
        # shellcheck disable=SC2086  # several units
        systemctl --quiet disable --now $units 2>/dev/null || true
    fi
    for each in $units; do
        rm -f "$local/lib/systemd/system/$each"
    done
    rm -f "$local/lib/sysusers.d/edgeproxy.conf" "$local/lib/tmpfiles.d/edgeproxy.conf" \
        "$local/bin/edgeproxy" "$local/share/bash-completion/completions/edgeproxy" \
        "$local/share/zsh/site-functions/_edgeproxy" \
        "$local/share/fish/vendor_completions.d/edgeproxy.fish"
    take_unless_changed "$etc/logrotate.d/edgeproxy"
    take_unless_changed "$etc/letsencrypt/renewal-hooks/deploy/edgeproxy"
    for each in lib/systemd/system lib/systemd lib/sysusers.d lib/tmpfiles.d \
        share/bash-completion/completions share/bash-completion share/zsh/site-functions share/zsh \
        share/fish/vendor_completions.d share/fish; do
        rmdir "$local/$each" 2>/dev/null || true
    done
    for each in letsencrypt/renewal-hooks/deploy letsencrypt/renewal-hooks letsencrypt; do
        rmdir "$etc/$each" 2>/dev/null || true
    done
    rm -rf "$venv"
    if booted; then
        systemctl daemon-reload
    fi
    [ -n "$dest" ] || echo "kept, with what you put there: /etc/edgeproxy, /var/lib/edgeproxy," \
        "/var/log/edgeproxy, and the user edgeproxy, who owns it"
}

[ -n "$dest" ] || [ "$(id -u)" = 0 ] || fail "root is needed for that; or DESTDIR=… for another place"
case $prefix in
/*[!A-Za-z0-9/._-]* | / | /usr | /usr/local) fail "PREFIX is a folder for edgeproxy alone: /opt/edgeproxy" ;;
*/ | *//* | */. | */./* | */.. | */../*) fail "PREFIX is a plain path, as /opt/edgeproxy" ;;
/*) ;;
*) fail "PREFIX is a whole path, as /opt/edgeproxy" ;;
esac
# It is emptied, so nobody else's things may be in it.
if [ ! -e "$mark" ] && [ -n "$(ls -A "$venv" 2>/dev/null)" ]; then
    fail "PREFIX is a folder for edgeproxy alone; in $venv is something else, and nothing was done"
fi
case ${1:-} in
install | uninstall) "$1" ;;
*) fail "make install, or make uninstall" ;;
esac
