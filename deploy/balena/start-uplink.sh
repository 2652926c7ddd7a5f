#!/bin/sh
# Starts the uplink. SITE_CREDENTIALS, the site's credentials file in base64,
# is written to memory first: the variable is how balena hands secrets out.
set -eu
if [ -n "${SITE_CREDENTIALS:-}" ]; then
	umask 077
	mkdir -p /run/uplink
	printf '%s' "$SITE_CREDENTIALS" | base64 -d >/run/uplink/site.creds
	unset SITE_CREDENTIALS
	export UPLINK_CREDENTIALS=/run/uplink/site.creds
fi
exec uplink run
