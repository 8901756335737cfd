# Writes DIR/module.yaml from TEMPLATE with the digests of the files in DIR.
file(SHA256 ${DIR}/${LIBRARY} LIBRARY_SHA256)
file(SHA256 ${DIR}/gate.safetensors GATE_SHA256)
file(SHA256 ${DIR}/weights.safetensors WEIGHTS_SHA256)
configure_file(${TEMPLATE} ${DIR}/module.yaml @ONLY)
