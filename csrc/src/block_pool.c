int cxp_placeholder_bp;
