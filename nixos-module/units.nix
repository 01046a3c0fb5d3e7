# Sizes and times as the settings write them.
{lib}: let
  inherit (builtins) elemAt fromJSON isInt isList match split stringLength;

  sizes = rec {
    b = 1;
    k = kb;
    kb = 1000;
    m = mb;
    mb = 1000 * kb;
    g = gb;
    gb = 1000 * mb;
    ki = kib;
    kib = 1024;
    mi = mib;
    mib = 1024 * kib;
    gi = gib;
    gib = 1024 * mib;
  };

  seconds = {
    ms = 0.001;
    s = 1;
    sec = 1;
    m = 60;
    min = 60;
    h = 3600;
    hr = 3600;
  };
in rec {
  sizePattern = "([0-9]+(\\.[0-9]+)?) *([KMGkmg]?[Ii]?[Bb]?)";

  # A part of a time such as "1m 30s".
  durationPart = "([0-9]+) *(ms|sec|s|min|m|hr|h)";
  durationPattern = "(${durationPart} *)+";

  # Bytes of a size.
  bytes = size:
    if isInt size
    then size
    else let
      parts = match sizePattern size;
      unit = lib.toLower (elemAt parts 2);
    in
      builtins.floor (fromJSON (elemAt parts 0)
        * (
          if stringLength unit == 0
          then 1
          else sizes.${unit}
        ));

  # Seconds of a time, rounded up.
  seconds' = time: let
    part = found: fromJSON (elemAt found 0) * seconds.${elemAt found 1};
    parts = map part (builtins.filter isList (split durationPart time));
  in
    builtins.ceil (lib.foldl' builtins.add 0 parts);

  inherit (sizes) kib mib;
}
