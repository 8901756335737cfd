"""What each module says of itself: description, licence, data sources, probe sentence."""
from __future__ import annotations

GENERAL = [("wikipedia (general), public mix", "CC-BY-SA-3.0 or 4.0"),
           ("classic_books, public mix", "public domain in the US"),
           ("openstax_gen, public mix", "CC-BY-3.0"),
           ("digital_gov and 18f_blog, public mix", "CC0-1.0")]

CARDS: dict[str, dict] = {
    "legal": {
        "version": "1.3.0", "license": "CC-BY-SA-4.0",
        "description": "Statutes, court opinions and contracts",
        "data": [("uscode (United States Code)", "public domain"),
                 ("dc_code (District of Columbia Code)", "public domain, released as CC0"),
                 ("scotus (US court opinions)", "public domain"),
                 ("contracts_* (ContraxSuite samples of EDGAR filings)", "CC-BY-SA-4.0"),
                 ("wikipedia_legal", "CC-BY-SA-3.0 or 4.0"), *GENERAL],
        "probe": "The Borrower shall deliver to the Administrative Agent, within thirty days after "
                 "the end of each fiscal quarter, a certificate stating that no Default has "
                 "occurred under this Agreement and that all amounts due have been paid.",
    },
    "bio": {
        "version": "1.3.0", "license": "CC-BY-SA-4.0",
        "description": "Medicine, genetics, plant and cell biology",
        "data": [("medquad (NIH and CDC questions and answers)", "CC-BY-4.0"),
                 ("pmc_oa (open-access research articles)", "CC-BY-4.0 or CC0, per article"),
                 ("plos (PLOS articles)", "CC-BY-4.0 or CC0, per article"),
                 ("openstax_bio (four biology textbooks)", "CC-BY-3.0"),
                 ("wikipedia_bio", "CC-BY-SA-3.0 or 4.0"), *GENERAL],
        "probe": "Mutations in this gene reduce the activity of an enzyme in the liver cells. "
                 "People with the disorder may have symptoms such as muscle weakness, fever and "
                 "an abnormal number of white blood cells.",
    },
    "finance": {
        "version": "1.3.0", "license": "CC-BY-SA-4.0",
        "description": "Monetary policy, banking and economics",
        "data": [("beige_book (Federal Reserve)", "public domain"),
                 ("fomc_minutes, fomc_statements", "public domain"),
                 ("fed_speeches, fed_pressconf", "public domain"),
                 ("openstax_econ (Principles of Economics)", "CC-BY-4.0"),
                 ("tatqa (annual-report notes)", "CC-BY-4.0"),
                 ("wikipedia_finance", "CC-BY-SA-3.0 or 4.0"), *GENERAL],
        "probe": "Participants noted that consumer price inflation had slowed in recent months "
                 "while the unemployment rate remained low, and several contacts in the District "
                 "reported that demand for business loans had weakened.",
    },
}
