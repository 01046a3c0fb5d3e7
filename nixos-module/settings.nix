# The submodule of `settings`: a typed option for everything in settings.json, which the binary prints
# (`gemmapod-signal settings --json`), and free-form TOML beside it for what a newer package may know.
{
  lib,
  pkgs,
}: let
  inherit (lib) mkOption types;
  units = import ./units.nix {inherit lib;};
  toml = (pkgs.formats.toml {}).type;

  described = setting: type: type // {description = setting.expected;};

  plain = {
    boolean = types.bool;
    inherit (types) port path;
    number = types.ints.between 1 1000000000;
    size = types.either types.ints.positive (types.strMatching units.sizePattern);
    duration = types.strMatching units.durationPattern;
    text = types.str;
  };

  kind = type:
    if builtins.isString type
    then plain.${type}
    else if type ? "one of"
    then types.enum type."one of"
    else if type ? "list of"
    then types.listOf (kind type."list of")
    else
      types.listOf (types.submodule {
        freeformType = toml;
        options = lib.listToAttrs (map (field: lib.nameValuePair field.key (option field)) type.tables);
      });

  # A list of tables has no default of its own: it is empty.
  isTables = setting: builtins.isAttrs setting.type && setting.type ? tables;

  option = setting: let
    type = described setting (kind setting.type);
  in
    mkOption {
      inherit (setting) description;
      type =
        if setting.default == null && !isTables setting
        then types.nullOr type
        else type;
      default =
        if isTables setting
        then []
        else setting.default;
    };
in {
  freeformType = toml;
  options =
    lib.foldl'
    (options: setting: lib.recursiveUpdate options (lib.setAttrByPath (lib.splitString "." setting.key) (option setting)))
    {}
    (lib.importJSON ./settings.json);
}
