# Names and certificates.
{
  config,
  lib,
  ...
}: let
  cfg = config.services.gemmapod-signal;
  inherit (cfg) settings;
  inherit (settings.tls) mode domains certificates;
  names = lib.optional (cfg.domain != null) cfg.domain ++ cfg.extraDomains;

  label = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?";
  isName = name: builtins.match "(\\*\\.)?(${label}\\.)*${label}" name != null;
  isAddress = name: lib.hasInfix ":" name || builtins.match "[0-9.]+" name != null;
  notForAcme = lib.filter (name: isAddress name || lib.hasPrefix "*." name) domains;

  host = cfg.tls.useACMEHost;
  certificate = config.security.acme.certs.${host};
  isProved = lib.any (way: certificate.${way} or null != null) ["dnsProvider" "listenHTTP" "webroot" "s3Bucket"];
  takesPort80 = host != null && lib.hasSuffix ":80" (toString certificate.listenHTTP);
in {
  config.assertions = lib.mkIf cfg.enable (
    map (name: {
      assertion = isName name;
      message = ''services.gemmapod-signal: "${name}" is not a domain: write the bare name, such as "pods.example.org", without scheme, port and path.'';
    })
    names
    ++ [
      {
        assertion = cfg.domain != null || cfg.extraDomains == [];
        message = "services.gemmapod-signal.extraDomains has names beside a first one that is missing: set services.gemmapod-signal.domain to it.";
      }
      {
        assertion = mode == "acme" -> domains != [];
        message = ''services.gemmapod-signal.tls.mode = "acme" needs a name to ask a certificate for: set services.gemmapod-signal.domain, or another tls.mode.'';
      }
      {
        assertion = mode == "self-signed" -> domains != [];
        message = ''services.gemmapod-signal.tls.mode = "self-signed" needs names for its certificate: set services.gemmapod-signal.domain, or settings.tls.domains = [ "192.0.2.1" ] for an address.'';
      }
      {
        assertion = mode == "acme" -> notForAcme == [];
        message = ''services.gemmapod-signal.tls.mode = "acme" gets certificates for plain names, and ${lib.concatStringsSep ", " notForAcme} is none: name each domain in extraDomains, or use tls.useACMEHost with a DNS challenge.'';
      }
      {
        assertion = mode == "files" -> certificates != [] || host != null;
        message = ''services.gemmapod-signal.tls.mode = "files" has no certificate: set settings.tls.certificates = [ { chain = "/run/keys/chain.pem"; key = "/run/keys/key.pem"; } ], or tls.useACMEHost.'';
      }
      {
        assertion = certificates != [] -> mode == "files";
        message = ''services.gemmapod-signal.settings.tls.certificates is for tls.mode = "files" only, and it is "${toString mode}": set it to "files", or leave the certificates out.'';
      }
      {
        assertion = lib.all (pair: pair.chain != null && pair.key != null) certificates;
        message = "services.gemmapod-signal.settings.tls.certificates has an entry that names only one of two files: give each a chain and a key.";
      }
      {
        assertion = host != null -> mode == "files";
        message = ''services.gemmapod-signal.tls.useACMEHost brings certificates of its own, but tls.mode is "${toString mode}": leave tls.mode out, or tls.useACMEHost.'';
      }
      {
        assertion = host != null -> isProved;
        message = ''services.gemmapod-signal.tls.useACMEHost = "${toString host}": nothing proves control of that name: set security.acme.certs."${toString host}".dnsProvider (or webroot, or listenHTTP), or correct the name.'';
      }
      {
        assertion = takesPort80 -> !(lib.any (listener: listener.port == 80) cfg.listeners);
        message = ''services.gemmapod-signal redirects port 80, which security.acme.certs."${toString host}".listenHTTP needs for its challenge: set services.gemmapod-signal.settings.port = 443 to listen there alone, or use a DNS challenge.'';
      }
      {
        assertion = (settings.acme.eab_key_id == null) == (settings.acme.eab_key_file == null);
        message = "services.gemmapod-signal.settings.acme: eab_key_id and eab_key_file belong together: set both, as the directory gave them, or none.";
      }
      {
        assertion = mode != "off" -> !(lib.hasPrefix "http://" (toString settings.public_url));
        message = ''services.gemmapod-signal.settings.public_url = "${toString settings.public_url}" leads to where there is no TLS, but tls.mode is "${toString mode}": begin it with https://, or leave it out.'';
      }
    ]
  );
}
