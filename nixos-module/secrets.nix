# Files that systemd hands over (LoadCredential=): where they are on the host, and where the broker finds them.
{lib}: let
  names = import ./names.nix;

  handed = name: file: {
    inherit name file;
    path = "${names.credentials}/${name}";
  };
in rec {
  # Certificates of the settings, in their order.
  certificates = settings:
    lib.imap0 (at: pair:
      pair
      // {
        chain = handed "tls-${toString at}-chain.pem" pair.chain;
        key = handed "tls-${toString at}-key.pem" pair.key;
      })
    settings.tls.certificates;

  eabKey = settings:
    if settings.acme.eab_key_file == null
    then null
    else handed "acme-eab-key" settings.acme.eab_key_file;

  # All of them.
  all = cfg:
    lib.concatMap (pair: [pair.chain pair.key]) (certificates cfg.settings)
    ++ lib.optional (cfg.settings.acme.eab_key_file != null) (eabKey cfg.settings)
    ++ lib.mapAttrsToList handed cfg.credentials;

  # A file that everybody on the host can read, or that would be copied to where they can.
  isInStore = file: builtins.isPath file || lib.hasPrefix "${builtins.storeDir}/" (toString file);
}
