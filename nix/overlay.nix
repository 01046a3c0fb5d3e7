final: _: {gemmapod-signal = final.callPackage ./package.nix {};}
