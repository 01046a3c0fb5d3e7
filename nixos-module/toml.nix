# Writes TOML, so that the file can be read in an evaluation; numbers, texts, booleans, lists and tables.
{lib}: let
  inherit (builtins) attrNames isAttrs isList isPath match toJSON;

  isTable = value: isAttrs value && !(value ? outPath);
  isTables = value: isList value && value != [] && lib.all isTable value;

  key = name:
    if match "[A-Za-z0-9_-]+" name != null
    then name
    else toJSON name;

  # On one line. JSON's texts, numbers and booleans are TOML's too; a path comes from the store.
  inline = value:
    if isList value
    then "[${lib.concatMapStringsSep ", " inline value}]"
    else if isTable value
    then "{ ${lib.concatMapStringsSep ", " (name: "${key name} = ${inline value.${name}}") (attrNames value)} }"
    else if isPath value
    then toJSON "${value}"
    else toJSON value;

  pairs = table: let
    here = lib.filterAttrs (_: value: !isTable value && !isTables value) table;
  in
    lib.concatMapStrings (name: "${key name} = ${inline here.${name}}\n") (attrNames here);

  below = at: table: let
    sub = name: let
      path = at ++ [(key name)];
      title = lib.concatStringsSep "." path;
      value = table.${name};
    in
      if isTables value
      then lib.concatMapStrings (entry: "\n[[${title}]]\n${pairs entry}${below path entry}") value
      else if isTable value
      then "${lib.optionalString (pairs value != "") "\n[${title}]\n${pairs value}"}${below path value}"
      else "";
  in
    lib.concatMapStrings sub (attrNames table);
in
  table: pairs table + below [] table
