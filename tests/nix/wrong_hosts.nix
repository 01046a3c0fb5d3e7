# Hosts that are wrong. `wrong_hosts.txt` has the sentence that the operator of each gets.
let
  broker = settings: {services.gemmapod-signal = {enable = true;} // settings;};
  named = settings: broker ({domain = "pods.example.org";} // settings);
  listening = listen: broker {settings = {inherit listen;};};
in {
  a-url-for-a-domain = broker {domain = "https://pods.example.org";};
  extra-domains-of-no-domain = broker {extraDomains = ["pods.example.net"];};
  acme-for-nobody = broker {tls.mode = "acme";};
  self-signed-for-nobody = broker {tls.mode = "self-signed";};
  acme-for-a-wildcard = named {extraDomains = ["*.example.org"];};
  acme-for-an-address = broker {domain = "192.0.2.1";};
  files-without-files = named {tls.mode = "files";};
  certificates-for-nothing = named {
    settings.tls.certificates = [
      {
        chain = "/run/keys/chain.pem";
        key = "/run/keys/key.pem";
      }
    ];
  };
  half-a-certificate = named {
    tls.mode = "files";
    settings.tls.certificates = [{chain = "/run/keys/chain.pem";}];
  };
  acme-host-and-own-acme = {
    imports = [
      (named {
        tls.useACMEHost = "example.org";
        tls.mode = "acme";
      })
    ];
    security.acme.certs."example.org" = {};
  };
  acme-host-of-nobody = named {tls.useACMEHost = "example.org";};
  acme-host-wants-port-80 = {
    imports = [(named {tls.useACMEHost = "example.org";})];
    security.acme.certs."example.org".listenHTTP = ":80";
  };
  half-an-account-binding = named {settings.acme.eab_key_id = "kid-1";};
  public-url-without-tls = named {settings.public_url = "http://pods.example.org";};

  a-key-in-the-store = named {
    tls.mode = "files";
    settings.tls.certificates = [
      {
        chain = "/run/keys/chain.pem";
        key = "/nix/store/11111111111111111111111111111111-key.pem";
      }
    ];
  };
  a-key-beside-the-config = named {
    settings.acme = {
      eab_key_id = "kid-1";
      eab_key_file = /etc/nixos/eab.key;
    };
  };
  a-credential-in-the-store = broker {credentials."token" = "/nix/store/11111111111111111111111111111111-token";};
  a-credential-with-a-slash = broker {credentials."keys/token" = "/run/keys/token";};
  a-credential-of-a-taken-name = named {
    credentials."acme-eab-key" = "/run/keys/other";
    settings.acme = {
      eab_key_id = "kid-1";
      eab_key_file = "/run/keys/eab";
    };
  };
  data-elsewhere = broker {settings.data_dir = "/srv/pods";};

  a-port-for-an-address = listening [{address = "443";}];
  a-socket-with-a-space = listening [{address = "unix:/run/my signal.sock";}];
  port-0 = broker {settings.port = 0;};
  port-70000 = listening [{address = "0.0.0.0:70000";}];
  a-host-name-to-listen-on = broker {settings.hostname = "pods.example.org";};
  a-socket-of-nobody = listening [{address = "systemd:https";}];
  tls-without-certificates = listening [
    {
      address = "[::]:443";
      tls = true;
    }
  ];
  certificates-without-tls = named {settings.listen = [{address = "[::]:8080";}];};
  a-redirect-with-tls = named {
    settings.listen = [
      {
        address = "[::]:443";
        tls = true;
        purpose = "redirect";
      }
      {
        address = "[::]:8443";
        tls = true;
      }
    ];
  };
  only-a-redirect = named {
    settings.listen = [
      {
        address = "[::]:80";
        purpose = "redirect";
      }
    ];
  };
  proxy-headers-of-nobody = listening [
    {
      address = "127.0.0.1:8080";
      proxy_protocol = true;
    }
  ];
  a-group-of-a-port = listening [
    {
      address = "127.0.0.1:8080";
      group = "nginx";
    }
  ];
  ipv6-only-on-ipv4 = listening [
    {
      address = "127.0.0.1:8080";
      ipv6_only = true;
    }
  ];
  ipv6-where-there-is-none = {
    imports = [(listening [{address = "[::]:8080";}])];
    networking.enableIPv6 = false;
  };
  one-address-twice = listening [{address = "127.0.0.1:8080";} {address = "127.0.0.1:8080";}];
  ipv4-twice = listening [{address = "[::]:8080";} {address = "0.0.0.0:8080";}];
  port-and-listen = broker {
    settings.port = 9000;
    settings.listen = [{address = "127.0.0.1:8080";}];
  };
  an-open-firewall-for-nobody = broker {openFirewall = true;};
  beside-nginx = {
    imports = [(named {})];
    services.nginx.enable = true;
  };
  beside-caddy = {
    imports = [(named {})];
    services.caddy.enable = true;
  };

  # What the module system says.
  a-misspelt-option = broker {domian = "pods.example.org";};
  a-mode-that-is-none = broker {tls.mode = "letsencrypt";};
  two-modes = broker {
    tls.mode = "off";
    settings.tls.mode = "acme";
  };
  a-word-for-a-number = broker {settings.signal.max_sockets = "many";};
  a-size-without-a-unit-that-is = broker {settings.pods.max_blob = "50 MegaBytes";};
  a-time-without-a-unit = broker {settings.drain_timeout = "10";};
  a-relative-path = broker {settings.data_dir = "./data";};

  # What `gemmapod-signal check-config` says when the system is built.
  a-misspelt-setting = broker {settings.signal.max_fram = "64 KiB";};
  a-section-that-is-none = broker {settings.signall.max_frame = "64 KiB";};
  a-proxy-that-is-none = broker {settings.trusted_proxies = ["nginx"];};
  an-upload-that-never-fits = broker {settings.pods.max_blob = "100 MiB";};
  a-contact-that-is-none = named {settings.acme.contact = ["admin"];};
  a-directory-without-https = named {settings.acme.directory = "http://localhost:14000/dir";};
}
