# What a host says about the broker.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.services.gemmapod-signal;
  names = import ./names.nix;
in {
  options.services.gemmapod-signal = {
    enable = lib.mkEnableOption "gemmapod-signal, the signalling broker and pod host of GemmaPod";

    package = mkOption {
      type = types.package;
      default = pkgs.gemmapod-signal or (pkgs.callPackage ../nix/package.nix {});
      defaultText = lib.literalExpression "pkgs.gemmapod-signal";
      description = "The package that is run, and that checks the configuration when the system is built.";
    };

    domain = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "pods.example.org";
      description = ''
        The name under which the world reaches the broker. With it, the broker gets certificates by ACME, listens on
        port 443 and leads port 80 there, unless {option}`services.gemmapod-signal.tls.mode` says otherwise. Without
        it, the broker listens on `127.0.0.1:8080` without TLS.
      '';
    };

    extraDomains = mkOption {
      type = types.listOf types.str;
      default = [];
      example = ["pods.example.net"];
      description = "Further names that certificates are for.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the firewall lets the world reach those ports that the settings listen on.";
    };

    tls = {
      mode = mkOption {
        type = types.nullOr (types.enum ["off" "files" "self-signed" "acme"]);
        default = null;
        description = ''
          Where certificates come from. If it is not set: `files` with
          {option}`services.gemmapod-signal.tls.useACMEHost`, else `acme` with
          {option}`services.gemmapod-signal.domain`, else `off`.
        '';
      };

      useACMEHost = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "example.org";
        description = ''
          The certificate of {option}`security.acme.certs` to use, in place of the broker's own ACME. The broker
          joins its group, starts after it was made and is told when it was renewed.
        '';
      };
    };

    credentials = mkOption {
      type = types.attrsOf types.path;
      default = {};
      example = {"proxy-ca.pem" = "/run/keys/proxy-ca.pem";};
      description = ''
        Secret files that systemd hands to the broker (LoadCredential), by name. The settings reach them as
        `${names.credentials}/NAME`. Files that `settings.tls.certificates` and `settings.acme.eab_key_file` name are
        handed over in the same way and need not stand here.
      '';
    };

    settings = mkOption {
      type = types.submodule (import ./settings.nix {inherit lib pkgs;});
      default = {};
      example = {
        signal.max_sockets = 4000;
        pods.max_blob = "10 MiB";
      };
      description = ''
        Settings of the broker, under their names in its configuration file; see docs/settings.md. The sockets that
        `listen`, `hostname` and `port` name are made by systemd, so that the broker needs no right to bind them.
      '';
    };

    listeners = mkOption {
      type = types.listOf types.attrs;
      internal = true;
      readOnly = true;
      default =
        import ./listeners.nix {
          inherit lib;
          inherit (config.networking) enableIPv6;
        }
        cfg.settings;
      description = "Where the broker listens: what the sockets, the firewall and its configuration are made from.";
    };
  };
}
