# Types of options: what they take, what they are called in a message, how several definitions become one.
lib: let
  inherit (builtins) all attrNames concatMap elem filter foldl' head isAttrs isBool isFloat isInt isList isPath isString length listToAttrs match substring;
  inherit (lib) mergeDefinitions nameValuePair showOption;

  type = {
    name,
    description ? name,
    merge ? one,
    ...
  } @ given:
    {
      _type = "option-type";
      descriptionClass = "noun";
    }
    // given
    // {inherit description merge;};

  values = defs: map (def: def.value) defs;
  files = defs: lib.concatMapStrings (def: "\n- In `${def.file}'") defs;

  # Definitions that must be the same.
  one = loc: defs: let
    first = (head defs).value;
  in
    if all (value: value == first) (values defs)
    then first
    else throw "The option `${showOption loc}' has conflicting definition values:${files defs}";

  isLikeText = value: isString value || isPath value || isAttrs value && value ? outPath;

  int = type {
    name = "int";
    description = "signed integer";
    check = isInt;
  };
  checked = of: description: holds:
    type {
      name = "checked ${of.name}";
      inherit description;
      check = value: of.check value && holds value;
    };

  # A name for each element, as it stands in messages.
  elements = loc: of: defs:
    lib.concatLists (lib.imap0 (nth: def:
      lib.imap0 (at: value:
        mergeDefinitions (loc ++ ["[definition ${toString (nth + 1)}-entry ${toString (at + 1)}]"]) of [(def // {inherit value;})])
      def.value)
    defs);

  types = rec {
    isType = name: value: value._type or null == name;

    inherit int;
    bool = type {
      name = "bool";
      description = "boolean";
      check = isBool;
    };
    float = type {
      name = "float";
      description = "floating point number";
      check = isFloat;
    };
    str = type {
      name = "str";
      description = "string";
      check = isString;
    };
    lines = type {
      name = "lines";
      description = "strings concatenated with \"\\n\"";
      check = isString;
      merge = _: defs: lib.concatStringsSep "\n" (values defs);
    };
    strMatching = pattern:
      type {
        name = "strMatching ${pattern}";
        description = "string matching the pattern ${pattern}";
        check = value: isString value && match pattern value != null;
      };
    path = type {
      name = "path";
      description = "absolute path";
      check = value: isLikeText value && substring 0 1 (toString value) == "/";
    };
    package = type {
      name = "package";
      check = value: lib.isDerivation value || isLikeText value && lib.hasPrefix builtins.storeDir (toString value);
    };
    port = ints.u16;
    ints = {
      positive = checked int "positive integer, meaning >0" (value: value > 0);
      unsigned = checked int "unsigned integer, meaning >=0" (value: value >= 0);
      u16 = checked int "16 bit unsigned integer; between 0 and 65535 (both inclusive)" (value: value >= 0 && value <= 65535);
      between = least: most: checked int "integer between ${toString least} and ${toString most} (both inclusive)" (value: value >= least && value <= most);
    };
    enum = names:
      type {
        name = "enum";
        description = "one of ${lib.concatMapStringsSep ", " builtins.toJSON names}";
        check = value: elem value names;
      };
    raw = type {
      name = "raw";
      description = "raw value";
      check = _: true;
    };
    attrs = type {
      name = "attrs";
      description = "attribute set";
      check = isAttrs;
      emptyValue = {};
      merge = _: defs: foldl' (left: right: left // right) {} (values defs);
    };
    anything = raw;

    nullOr = of:
      type {
        name = "nullOr";
        description = "null or ${of.description}";
        check = value: value == null || of.check value;
        emptyValue = null;
        merge = loc: defs: let
          nulls = filter (value: value == null) (values defs);
        in
          if length nulls == length defs
          then null
          else if nulls != []
          then throw "The option `${showOption loc}' is defined both null and not null, in${files defs}."
          else of.merge loc defs;
      };
    either = left: right:
      type {
        name = "either";
        description = "${left.description} or ${right.description}";
        check = value: left.check value || right.check value;
        merge = loc: defs:
          if all left.check (values defs)
          then left.merge loc defs
          else if all right.check (values defs)
          then right.merge loc defs
          else one loc defs;
      };
    oneOf = list: foldl' either (head list) (lib.drop 1 list);

    listOf = of:
      type {
        name = "listOf";
        description = "list of ${of.description}";
        check = isList;
        emptyValue = [];
        merge = loc: defs: map (element: element.value) (filter (element: element.isDefined) (elements loc of defs));
      };
    attrsOf = of:
      type {
        name = "attrsOf";
        description = "attribute set of ${of.description}";
        check = isAttrs;
        emptyValue = {};
        merge = loc: defs: let
          pushed = concatMap (def: map (value: def // {inherit value;}) (lib.pushDown def.value)) defs;
          names = lib.unique (concatMap (def: attrNames def.value) pushed);
          of' = name: mergeDefinitions (loc ++ [name]) of (concatMap (def: lib.optional (def.value ? ${name}) (def // {value = def.value.${name};})) pushed);
        in
          listToAttrs (map (name: nameValuePair name (of' name).value) (filter (name: (of' name).isDefined) names));
      };
    lazyAttrsOf = attrsOf;

    submodule = module:
      type {
        name = "submodule";
        check = value: isAttrs value || builtins.isFunction value || isPath value;
        emptyValue = {};
        merge = loc: defs: let
          given =
            map (def: {
              _file = def.file;
              config = def.value;
            })
            defs;
        in
          (lib.evalModules {
            modules = [module] ++ given;
            prefix = loc;
            specialArgs.name = lib.last loc;
          })
          .config;
      };
  };
in
  types
