# A machine without NixOS, and nothing of the broker on it.
{nodes.machine = {};}
