# As much of nixpkgs' `lib` as the module and the flake of this repository use, for machines that have no nixpkgs.
# `tests/nix/run` takes a real one in its place where it finds it.
let
  inherit (builtins) fromJSON genList match readFile split substring;

  lib =
    rec {
      inherit (builtins) all any attrNames attrValues concatLists concatMap concatStringsSep elem elemAt filter foldl' hasAttr head isAttrs isBool isFunction isInt isList isPath isString length listToAttrs mapAttrs removeAttrs replaceStrings stringLength tail toJSON;

      id = x: x;
      min = a: b:
        if a < b
        then a
        else b;
      max = a: b:
        if a > b
        then a
        else b;

      # Lists
      optional = condition: item:
        if condition
        then [item]
        else [];
      optionals = condition: items:
        if condition
        then items
        else [];
      count = holds: items: length (filter holds items);
      take = number: items: genList (elemAt items) (min number (length items));
      last = items: elemAt items (length items - 1);
      init = items: take (length items - 1) items;
      imap0 = f: items: genList (at: f at (elemAt items at)) (length items);
      unique = builtins.foldl' (seen: item:
        if builtins.elem item seen
        then seen
        else seen ++ [item]) [];
      findFirst = holds: otherwise: items: let
        found = filter holds items;
      in
        if found == []
        then otherwise
        else head found;
      toList = x:
        if isList x
        then x
        else [x];
      flatten = x:
        if isList x
        then concatMap flatten x
        else [x];

      # Texts
      optionalString = condition: text:
        if condition
        then text
        else "";
      hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
      hasSuffix = suffix: text: let
        over = stringLength text - stringLength suffix;
      in
        over >= 0 && substring over (-1) text == suffix;
      hasInfix = infix: text: builtins.length (split (escapeRegex infix) text) > 1;
      removePrefix = prefix: text:
        if hasPrefix prefix text
        then substring (stringLength prefix) (-1) text
        else text;
      removeSuffix = suffix: text:
        if hasSuffix suffix text
        then substring 0 (stringLength text - stringLength suffix) text
        else text;
      escapeRegex = replaceStrings ["\\" "[" "]" "{" "}" "(" ")" "^" "$" "?" "*" "+" "|" "."] ["\\\\" "\\[" "\\]" "\\{" "\\}" "\\(" "\\)" "\\^" "\\$" "\\?" "\\*" "\\+" "\\|" "\\."];
      splitString = separator: text: filter (part: !isList part) (split (escapeRegex separator) text);
      concatStrings = builtins.concatStringsSep "";
      concatMapStrings = f: items: concatStrings (map f items);
      concatMapStringsSep = separator: f: items: builtins.concatStringsSep separator (map f items);
      versionAtLeast = version: least: builtins.compareVersions version least >= 0;
      toLower = let
        upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        lower = "abcdefghijklmnopqrstuvwxyz";
        letters = text: genList (at: substring at 1 text) (stringLength text);
      in
        replaceStrings (letters upper) (letters lower);
      toIntBase10 = text: let
        digits = match "0*([0-9]+)" text;
      in
        if digits == null
        then throw "toIntBase10: Could not convert ${text} to int."
        else fromJSON (head digits);

      boolToString = value:
        if value
        then "true"
        else "false";

      # Sets
      nameValuePair = name: value: {inherit name value;};
      genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
      filterAttrs = holds: set: removeAttrs set (filter (name: !holds name set.${name}) (attrNames set));
      mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
      mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
      optionalAttrs = condition: set:
        if condition
        then set
        else {};
      attrByPath = path: otherwise: set:
        if path == []
        then set
        else if isAttrs set && set ? ${head path}
        then attrByPath (tail path) otherwise set.${head path}
        else otherwise;
      setAttrByPath = path: value:
        if path == []
        then value
        else {${head path} = setAttrByPath (tail path) value;};
      recursiveUpdate = left: right:
        left
        // mapAttrs (name: value:
          if left ? ${name} && isAttrs left.${name} && isAttrs value
          then recursiveUpdate left.${name} value
          else value)
        right;

      isDerivation = value: isAttrs value && value.type or null == "derivation";
      importJSON = path: fromJSON (readFile path);
      importTOML = path: builtins.fromTOML (readFile path);
      getExe = package: "${package}/bin/${package.meta.mainProgram or package.pname}";
      platforms = {
        linux = ["x86_64-linux" "aarch64-linux"];
        darwin = ["x86_64-darwin" "aarch64-darwin"];
        unix = platforms.linux ++ platforms.darwin;
      };
      licenses.mit = {spdxId = "MIT";};
      fileset = {
        maybeMissing = file: optional (builtins.pathExists file) file;
        # Those that may be missing came as a list.
        unions = concatMap (file:
          if isList file
          then map toString file
          else if builtins.pathExists file
          then [(toString file)]
          else throw "lib.fileset.unions: ${toString file} does not exist");
        toSource = {
          root,
          fileset,
        }: {
          outPath = "/nix/store/11111111111111111111111111111111-source";
          top = unique (map (file: head (splitString "/" (removePrefix "${toString root}/" file))) fileset);
        };
      };
      inherit (types) isType;

      types = import ./types.nix lib;
    }
    // import ./modules.nix lib;
in
  lib
