# The options of NixOS that the module reads and sets, as NixOS declares them, without what they do.
{lib, ...}: let
  inherit (lib) mkOption types;
  option = type: default: mkOption {inherit type default;};
  listOfText = option (types.listOf types.str) [];

  # Values of a section of a unit file: one, or a list of lines.
  section = option (types.attrsOf (types.oneOf [types.bool types.int types.float types.str types.path (types.listOf (types.oneOf [types.bool types.int types.float types.str types.path]))])) {};

  unit = {
    description = option types.str "";
    documentation = listOfText;
    requires = listOfText;
    wants = listOfText;
    after = listOfText;
    before = listOfText;
    wantedBy = listOfText;
    unitConfig = section;
  };
in {
  options = {
    assertions = option (types.listOf types.attrs) [];
    warnings = listOfText;

    environment = {
      etc = option (types.attrsOf (types.submodule {options.source = mkOption {type = types.path;};})) {};
      systemPackages = option (types.listOf types.package) [];
    };

    networking = {
      enableIPv6 = option types.bool true;
      firewall = {
        enable = option types.bool true;
        allowedTCPPorts = option (types.listOf types.port) [];
        allowedUDPPorts = option (types.listOf types.port) [];
      };
    };

    security.acme = {
      acceptTerms = option types.bool false;
      defaults.email = option (types.nullOr types.str) null;
      certs = option (types.attrsOf (types.submodule ({name, ...}: {
        options = {
          directory = option types.str "/var/lib/acme/${name}";
          group = option types.str "acme";
          listenHTTP = option (types.nullOr types.str) null;
          dnsProvider = option (types.nullOr types.str) null;
          webroot = option (types.nullOr types.str) null;
          reloadServices = listOfText;
        };
      }))) {};
    };

    services = {
      nginx = {
        enable = option types.bool false;
        defaultHTTPListenPort = option types.port 80;
        defaultSSLListenPort = option types.port 443;
        virtualHosts = option (types.attrsOf types.attrs) {};
      };
      caddy = {
        enable = option types.bool false;
        httpPort = option types.port 80;
        httpsPort = option types.port 443;
        virtualHosts = option (types.attrsOf types.attrs) {};
      };
    };

    users.groups = option (types.attrsOf types.attrs) {};

    systemd = {
      package = mkOption {
        type = types.attrs;
        default.version = "257";
      };
      services = option (types.attrsOf (types.submodule {
        options =
          unit
          // {
            serviceConfig = section;
            stopIfChanged = option types.bool true;
            startLimitIntervalSec = option (types.nullOr types.int) null;
            reloadTriggers = option (types.listOf types.path) [];
            restartTriggers = option (types.listOf types.str) [];
          };
      })) {};
      sockets = option (types.attrsOf (types.submodule {
        options =
          unit
          // {
            socketConfig = section;
            listenStreams = listOfText;
          };
      })) {};
    };
  };
}
