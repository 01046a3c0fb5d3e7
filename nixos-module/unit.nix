# The service: no user of its own, no capability, one directory to write to, no network where it needs none.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkDefault mkIf;
  cfg = config.services.gemmapod-signal;
  names = import ./names.nix;
  limits = import ./limits.nix {inherit lib;};
  units = import ./units.nix {inherit lib;};
  secrets = import ./secrets.nix {inherit lib;};
  # Only ACME calls others; clients come in through the sockets, which are made outside.
  callsOut = cfg.settings.tls.mode == "acme";
  sockets = map (listener: "${names.socketUnit listener}.socket") (lib.filter (listener: listener.streams != []) cfg.listeners);

  # Beside what every mode has.
  network =
    if callsOut
    then {
      RestrictAddressFamilies = ["AF_UNIX" "AF_INET" "AF_INET6"];
      # The resolver of musl, and so of static builds, binds its socket before it asks.
      SocketBindAllow = ["ipv4:udp" "ipv6:udp"];
    }
    else {
      PrivateNetwork = true;
      RestrictAddressFamilies = ["AF_UNIX"];
      IPAddressDeny = "any";
    };
in {
  config.systemd.services.${names.service} = mkIf cfg.enable {
    description = "GemmaPod signalling broker";
    documentation = ["https://gemmapod.com"];
    wantedBy = ["multi-user.target"];
    requires = sockets;
    after = sockets ++ ["network.target"] ++ lib.optional callsOut "network-online.target";
    wants = lib.optional callsOut "network-online.target";
    # A new generation restarts the service and leaves the sockets open: clients wait, none is refused.
    stopIfChanged = false;
    # It is tried for ever, more and more slowly.
    startLimitIntervalSec = 0;

    serviceConfig =
      {
        Type = "notify-reload";
        ExecStart = "${lib.getExe cfg.package} --config /etc/${names.configFile}";
        Sockets = sockets;
        WatchdogSec = mkDefault 30;
        Restart = "on-failure";
        RestartSec = mkDefault 1;
        RestartSteps = mkDefault 6;
        RestartMaxDelaySec = mkDefault 60;
        # A wrong configuration does not mend itself.
        RestartPreventExitStatus = 2;
        TimeoutStopSec = mkDefault (units.seconds' cfg.settings.drain_timeout + 15);

        DynamicUser = true;
        User = names.service;
        StateDirectory = lib.removePrefix "/var/lib/" cfg.settings.data_dir;
        StateDirectoryMode = "0700";
        UMask = "0077";
        LoadCredential = map (secret: "${secret.name}:${secret.file}") (secrets.all cfg);

        MemoryMax = mkDefault (limits.memory cfg.settings);
        TasksMax = mkDefault (limits.tasks cfg.settings);
        LimitNOFILE = mkDefault (limits.files cfg.settings);
        # Private keys are in its memory.
        LimitCORE = 0;
        # It starts again in a moment and loses nothing: where the host runs out of memory, others are spared.
        OOMScoreAdjust = mkDefault 250;

        CapabilityBoundingSet = "";
        AmbientCapabilities = "";
        NoNewPrivileges = true;
        PrivateUsers = true;
        PrivateDevices = true;
        DevicePolicy = "closed";
        PrivateTmp = true;
        PrivateMounts = true;
        PrivateIPC = true;
        ProtectSystem = "strict";
        # Where everybody may write, it may not; what it writes is no program.
        ReadOnlyPaths = ["-/tmp" "-/var/tmp" "-/dev/shm" "-/dev/mqueue" "-/run/lock"];
        NoExecPaths = [cfg.settings.data_dir];
        ProtectHome = true;
        ProtectProc = "invisible";
        ProcSubset = "pid";
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        KeyringMode = "private";
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        RemoveIPC = true;
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        # All sockets it listens on are handed over.
        SocketBindDeny = "any";
        SystemCallArchitectures = "native";
        SystemCallFilter = ["@system-service" "~@privileged @resources @setuid @keyring @memlock"];
        SystemCallErrorNumber = "EPERM";
      }
      // network
      # Files that were renewed reach the broker with a reload; older systemd brings them with a restart only.
      // lib.optionalAttrs (secrets.all cfg != [] && lib.versionAtLeast config.systemd.package.version "261") {RefreshOnReload = "credentials";};
  };
}
