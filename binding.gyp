{
  # A thin shim: npm, node-gyp-build and prebuildify know node-gyp, the sources are native/CMakeLists.txt's.
  "targets": [
    {
      "target_name": "obuilder_fs",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["native/CMakeLists.txt"],
          "outputs": ["<(PRODUCT_DIR)/obuilder_fs.node"],
          "action": ["node", "scripts/build-native.js", "--output", "<(PRODUCT_DIR)"]
        }
      ]
    }
  ]
}
