"""The services behind: targets, pools of connections, choosing, connecting, retrying."""
