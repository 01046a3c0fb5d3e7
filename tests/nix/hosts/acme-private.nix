# A directory of one's own, with a root that is not the world's and an account binding.
{
  services.gemmapod-signal = {
    enable = true;
    domain = "pods.example.org";
    openFirewall = true;
    settings.acme = {
      directory = "https://acme.example.org/directory";
      contact = ["mailto:admin@example.org"];
      challenges = ["http-01"];
      root = "/etc/ssl/private-root.pem";
      eab_key_id = "kid-1";
      eab_key_file = "/run/keys/eab";
    };
  };
}
