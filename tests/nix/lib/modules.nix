# The module system: declarations become a tree of options, definitions are pushed down to them and merged.
lib: let
  inherit (builtins) attrNames concatMap concatStringsSep filter foldl' head isAttrs isFunction isPath isString mapAttrs;
  inherit (lib) optional setAttrByPath;

  typeOf = value: value._type or null;
  isOption = value: isAttrs value && typeOf value == "option";

  showOption = loc: let
    part = name:
      if builtins.match "[a-zA-Z_][a-zA-Z0-9_'-]*" name != null || name == "*"
      then name
      else builtins.toJSON name;
  in
    concatStringsSep "." (map part loc);

  # A property of a set is one of everything in it.
  pushDown = value:
    if !isAttrs value
    then [value]
    else if typeOf value == "if"
    then map (mapAttrs (_: lib.mkIf value.condition)) (pushDown value.content)
    else if typeOf value == "merge"
    then concatMap pushDown value.contents
    else if typeOf value == "override"
    then map (mapAttrs (_: lib.mkOverride value.priority)) (pushDown value.content)
    else [value];

  discharge = value:
    if typeOf value == "if"
    then
      if value.condition
      then discharge value.content
      else []
    else if typeOf value == "merge"
    then concatMap discharge value.contents
    else [value];

  priorityOf = value:
    if typeOf value == "override"
    then value.priority
    else 100;

  # Those definitions that no stronger one overrides.
  strongest = defs: let
    best = foldl' (least: def: lib.min least (priorityOf def.value)) 9999 defs;
    content = def:
      if typeOf def.value == "override"
      then def // {value = def.value.content;}
      else def;
  in
    map content (filter (def: priorityOf def.value == best) defs);

  located = defs: f: concatMap (def: map (value: def // {inherit value;}) (f def.value)) defs;

  inFiles = defs: lib.concatMapStrings (def: "\n- In `${def.file}'") defs;

  mergeDefinitions = loc: type: defs: let
    final = strongest (located defs discharge);
    wrong = filter (def: !type.check def.value) final;
  in {
    isDefined = final != [];
    value =
      if final == [] && type ? emptyValue
      then type.emptyValue
      else if final == []
      then throw "The option `${showOption loc}' was accessed but has no value defined. Try setting the option."
      else if wrong != []
      then throw "A definition for option `${showOption loc}' is not of type `${type.description}'. Definition values:${inFiles wrong}"
      else type.merge loc final;
  };

  evalOption = loc: option: defs: let
    ofDefault = optional (option ? default) {
      file = "the default";
      value = lib.mkOverride 1500 option.default;
    };
    merged = mergeDefinitions loc option.type (ofDefault ++ defs);
  in
    option
    // {
      inherit loc;
      value =
        if option.readOnly or false && defs != []
        then throw "The option `${showOption loc}' is read-only, but it's set multiple times. Definition values:${inFiles defs}"
        else (option.apply or lib.id) merged.value;
    };

  mergeTrees = foldl' (left: right:
    left
    // mapAttrs (name: value:
      if left ? ${name} && !isOption value && !isOption left.${name}
      then mergeTrees [left.${name} value]
      else value)
    right) {};

  # Options with their values, and the definitions that no option is for.
  evalTree = loc: tree: defs: let
    pushed = located defs pushDown;
    of = name: concatMap (def: optional (def.value ? ${name}) (def // {value = def.value.${name};})) pushed;
    here = mapAttrs (name: option:
      if isOption option
      then {
        options = evalOption (loc ++ [name]) option (of name);
        unmatched = [];
      }
      else evalTree (loc ++ [name]) option (of name))
    tree;
    foreign = def:
      map (name: {
        inherit (def) file;
        path = loc ++ [name];
        value = def.value.${name};
      }) (filter (name: !(tree ? ${name})) (attrNames def.value));
  in {
    options = mapAttrs (_: found: found.options) here;
    unmatched = concatMap foreign pushed ++ concatMap (name: here.${name}.unmatched) (attrNames tree);
  };

  valuesOf = mapAttrs (_: option:
    if isOption option
    then option.value
    else valuesOf option);

  evalModules = {
    modules,
    specialArgs ? {},
    prefix ? [],
  }: let
    args = specialArgs // {inherit lib config options;};

    load = file: module:
      if isPath module || isString module
      then load (toString module) (import module)
      else if isFunction module
      then load file (module args)
      else let
        isFull = module ? config || module ? options;
        at = module._file or file;
        part = name: module.${name} or {};
      in {
        file = at;
        options = part "options";
        freeform = optional (module ? freeformType) module.freeformType;
        config =
          if isFull
          then part "config"
          else removeAttrs module ["imports" "_file" "freeformType" "key"];
        imports = map (load at) (module.imports or []);
      };

    # What is imported comes after all that imports it; definitions count from the last.
    levels = level:
      if level == []
      then []
      else level ++ levels (concatMap (module: module.imports) level);
    reversed = foldl' (items: item: [item] ++ items) [];
    loaded = reversed (levels (map (load "<unknown-file>") modules));
    freeform = concatMap (module: module.freeform) loaded;
    evaluated = evalTree prefix (mergeTrees (map (module: module.options) loaded)) (map (module: {
        inherit (module) file;
        value = module.config;
      })
      loaded);
    inherit (evaluated) options unmatched;
    depth = builtins.length prefix;
    below = def: {
      inherit (def) file;
      value = setAttrByPath (lib.drop depth def.path) def.value;
    };
    values = valuesOf options;
    config =
      if freeform == []
      then values
      else if unmatched == []
      then values
      else lib.recursiveUpdate ((head freeform).merge prefix (map below unmatched)) values;
    checked = result:
      if freeform == [] && unmatched != []
      then throw "The option `${showOption (head unmatched).path}' does not exist. Definition values:${inFiles [(head unmatched)]}"
      else result;
  in {
    options = checked options;
    config = checked config;
  };
in {
  inherit evalModules mergeDefinitions pushDown showOption;

  drop = number: items: let
    left = builtins.length items - number;
  in
    builtins.genList (at: builtins.elemAt items (at + number)) (lib.max 0 left);

  mkOption = option: option // {_type = "option";};
  mkEnableOption = name:
    lib.mkOption {
      default = false;
      example = true;
      description = "Whether to enable ${name}.";
      type = lib.types.bool;
    };
  literalExpression = text: {
    _type = "literalExpression";
    inherit text;
  };

  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkForce = lib.mkOverride 50;
  mkDefault = lib.mkOverride 1000;
  mkOptionDefault = lib.mkOverride 1500;
}
