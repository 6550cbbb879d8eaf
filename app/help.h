/* help.h - the pages that teach, printed from the same tables that parsing uses. */
#ifndef FOVEA_APP_HELP_H
#define FOVEA_APP_HELP_H

#include "cli.h"

void help_page(const cli_page *page, const cli_option *common, int n_common);
/* The common options that a page takes; at most 12. */
int cli_common_options(unsigned takes, cli_common *common, cli_option *out);

#endif
