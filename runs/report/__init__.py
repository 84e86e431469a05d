"""The report: ``report_files`` writes all formats from one ``report_content.Report``."""
