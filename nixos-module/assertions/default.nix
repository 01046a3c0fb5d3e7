# What of a host config contradicts itself. Each sentence says what is wrong and how to mend it.
{
  imports = [./certificates.nix ./files.nix ./listeners.nix ./warnings.nix];
}
